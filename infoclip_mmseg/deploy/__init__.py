from infoclip_mmseg.deploy.files import (
    Agreement,
    check_export,
    describe,
    run_export,
    save_onnx,
    save_pt2,
    save_text,
)
from infoclip_mmseg.deploy.view import ExportedView, export_program

__all__ = [
    'Agreement',
    'ExportedView',
    'check_export',
    'describe',
    'export_program',
    'run_export',
    'save_onnx',
    'save_pt2',
    'save_text',
]
