"""A hospital's own files, listed by a table: pictures, NIfTI volumes or DICOM."""
