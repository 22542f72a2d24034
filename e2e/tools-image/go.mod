module k3nest.dev/e2e/tools-image

go 1.24
