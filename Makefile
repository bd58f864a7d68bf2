# Everything here is a short name for a command that works without make.
BIN     := bin
GOFLAGS := -trimpath -buildvcs=true

.PHONY: build test worlds race lint generate docs fuzz clean

build: ## the binaries, static, into bin/
	CGO_ENABLED=0 go build $(GOFLAGS) -o $(BIN)/ ./cmd/...

test: ## what README and .ci/run call first
	go test ./...

worlds: ## N simulated worlds of a whole server
	QPC_WORLDS=$(or $(N),1000) go test -count=1 -timeout 0 -v -run '^TestWorlds$$' ./rpc/sim

race: ## the same tests, smaller counts, with the race detector
	QPC_TEST_SCALE=race go test -race ./...

lint: ## formatting, vet, staticcheck, tidy module files
	test -z "$$(gofmt -l .)"
	go vet ./...
	go tool -modfile=tools.mod staticcheck ./...
	go mod tidy -diff

generate: ## proto/qpcv1 from proto/qpc/v1 (needs protoc)
	go generate ./proto

docs: ## the tables in docs/ that tests write from the code
	go test ./... -run 'Doc|Vectors' -update

fuzz: ## each fuzz target for FUZZTIME
	.ci/fuzz $(or $(FUZZTIME),10s)

clean:
	rm -rf $(BIN)
