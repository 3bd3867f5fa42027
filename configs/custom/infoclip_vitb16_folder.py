# InfoCLIP with CLIP ViT-B/16 on folders of images and label maps, and a list of class names.
# python tools/train.py configs/custom/infoclip_vitb16_folder.py
_base_ = ['../infoclip_vitb16_coco-stuff.py']
mine = dict(
    _delete_=True,
    type='VocabularyDataset',
    data_root='data/mine',
    vocabulary='classes.txt',  # one name a line, 'car, automobile' for synonyms, in label order
)
train = dict(img_path='images/train', seg_map_path='labels/train')
val = dict(img_path='images/val', seg_map_path='labels/val')
train_dataloader = dict(dataset=dict(**mine, data_prefix=train, pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(**mine, data_prefix=val, pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
