"""What tools/benchmark.py measures: time, memory and operators of the parts of a model.

In the process that starts measurements: sides.py (what is compared, the machine), runs.py (which
measurements, a fresh process for each) and report.py (tables, pictures, JSON and Markdown). In the
measuring process: worker.py, measure.py (of a call), bench.py (model and inputs), subjects.py and
data_subjects.py (what is called).

The measured infoclip_mmseg may be that of another checkout. The second group therefore runs beside
it, imported as a package ``timing``: its modules import each other relatively, and of
infoclip_mmseg only what is public.
"""
