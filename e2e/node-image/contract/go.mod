module k3nest.dev/e2e/node-image/contract

go 1.24
