"""Reads DICOM: a file as an image, a folder as a volume."""
