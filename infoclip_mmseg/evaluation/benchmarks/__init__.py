"""Evaluation of one checkpoint on several data sets, and the row of the papers' main table."""

from infoclip_mmseg.evaluation.benchmarks.run import (
    Plan,
    evaluate_plan,
    evaluation_pipeline,
    make_plans,
    run_benchmarks,
)

__all__ = ['Plan', 'evaluate_plan', 'evaluation_pipeline', 'make_plans', 'run_benchmarks']
