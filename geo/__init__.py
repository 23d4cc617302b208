"""Maps -> Scene: buildings, mesh, height map, base station, users. Light: importing it loads no GIS library."""
