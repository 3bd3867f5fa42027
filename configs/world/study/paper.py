# The paper's ratio: CLIP at 0.01 of the head's rate, 12 seen compositions; nothing is forgotten.
# python tools/ablation.py configs/world/study/paper.py --jobs 2
_base_ = ['./rows.py']
_rows = (
    *('zero-shot', 'CAT-Seg', 'KL', 'MAFT', 'MAFT+ (RC)', 'L_c only', 'L_d only', 'InfoCLIP'),
    *('InfoCLIP, 0.1', 'InfoCLIP, 10', 'CS positions, 0.1', 'CS positions', 'CS positions, 10'),
    *('CS images', 'CS map', 'CS positions, shared LPAM, L_c', 'CS positions, 30 words'),
    *('CAT-Seg, clips apart', 'InfoCLIP, clips apart', 'InfoCLIP, one clip'),
)
runs = [run for run in _base_.runs if run.name in _rows]
