"""From files to a LoadedModel: finding, reading, quantized formats, packing for a CPU, and the memory that it will take."""
