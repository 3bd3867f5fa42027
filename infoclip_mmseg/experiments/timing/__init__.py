"""What tools/benchmark.py measures: time, memory and operators of the parts of a model.

In the process that starts measurements and reports them:

sides.py          what is compared, and the machine
runs.py           parts and sweeps; a fresh process for each measurement, in turn
report.py         tables, what follows from several measurements, JSON and Markdown
plots.py          pictures

In the measuring process:

settings.py       what one measurement is about
inputs.py         class names, images and labels
measure.py        seconds, peak memory, operators and operations of a call
building.py       the model
subjects.py       the parts of a model that can be measured
data_subjects.py  what runs outside of the model: evaluation, conversion of data sets
worker.py         one measurement

The measured infoclip_mmseg may be that of another checkout. The second group therefore runs beside
it, imported as a package ``timing``: its modules import each other relatively, and of
infoclip_mmseg only what is public.
"""
