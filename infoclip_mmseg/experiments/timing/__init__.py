"""What tools/benchmark.py measures: time, memory and operators of the parts of a model.

command.py    the command line
machine.py    what a benchmark ran on
settings.py   what one measurement is about
inputs.py     class names, images and labels of a measurement
measure.py    seconds and peak memory
building.py   the model of a measurement
subjects.py   the parts that can be measured; loss_subjects.py: LPAM, losses, entropies
operators.py  shares of operators, through torch.profiler
flops.py      floating-point operations
worker.py     one measurement in a process of its own
runs.py       starts these processes in turn, for several sides
worktree.py   another commit of this clone as a side
memory.py     the memory guide: what is measured, what is computed
results.py    outcomes of measurements and what follows from them
report.py     JSON and Markdown
plots.py      pictures
"""
