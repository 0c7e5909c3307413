"""Missing cells of the data, drawn from their posterior given the cells that were observed."""
