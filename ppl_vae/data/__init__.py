"""Data of any form as rows, data files, and the cells of the data that a site observes."""
