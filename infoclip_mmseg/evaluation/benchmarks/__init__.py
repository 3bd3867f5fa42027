"""Evaluation of one checkpoint on several data sets, and the row of the papers' main table."""

from infoclip_mmseg.evaluation.benchmarks.run import (
    Plan,
    check_finds_masks,
    evaluate_plan,
    evaluation_pipeline,
    make_plans,
    run_benchmarks,
)

__all__ = [
    'Plan',
    'check_finds_masks',
    'evaluate_plan',
    'evaluation_pipeline',
    'make_plans',
    'run_benchmarks',
]
