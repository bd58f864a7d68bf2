# Everything here is a short name for a command that works without make.
BIN     := bin
GOFLAGS := -trimpath -buildvcs=true

.PHONY: build test worlds power faults rot race lint generate docs fuzz clean

build: ## the binaries, static, into bin/
	CGO_ENABLED=0 go build $(GOFLAGS) -o $(BIN)/ ./cmd/...

test: ## what README and .ci/run call first
	go test ./...

worlds: ## N simulated worlds of a whole server
	QPC_WORLDS=$(or $(N),1000) go test -count=1 -timeout 0 -v -run '^TestWorlds$$' ./rpc/sim

power: ## N losses of power in a scripted run of a whole server
	QPC_FAULTS=$(or $(N),1000) go test -count=1 -timeout 0 -v -run '^TestPowerLossAtAnyOperation$$' ./rpc/sim

faults: ## N failing file operations of each kind in the same run; every one without N
	QPC_FAULTS=$(or $(N),1000000) go test -count=1 -timeout 0 -v -run '^TestEveryFileOperationFails$$' ./rpc/sim

rot: ## N flipped bits in each file that the run leaves, and torn tails
	QPC_FAULTS=$(or $(N),40) go test -count=1 -timeout 0 -v -run '^TestRottenFiles$$' ./rpc/sim

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
