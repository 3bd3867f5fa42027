"""Results in the formats of labelling tools: COCO, labelme, CVAT, Label Studio, YOLO-seg."""

from infoclip_mmseg.annotations.exportable import Exportable
from infoclip_mmseg.annotations.formats import FORMATS, make_writer
from infoclip_mmseg.annotations.regions import Region, Regions, label_regions

__all__ = ['FORMATS', 'Exportable', 'Region', 'Regions', 'label_regions', 'make_writer']
