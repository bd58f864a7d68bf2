#!/usr/bin/env bash
# Makes proto/qpcv1 anew from proto/qpc/v1/*.proto. Run as: go generate ./proto
set -euo pipefail
cd "$(dirname "$0")"
plugin=$(mktemp -d)
trap 'rm -rf "$plugin"' EXIT
go build -modfile=../tools.mod -o "$plugin/protoc-gen-go" google.golang.org/protobuf/cmd/protoc-gen-go
rm -f qpcv1/*.pb.go
protoc --proto_path=. --plugin="$plugin/protoc-gen-go" \
  --go_out=.. --go_opt=module=quicprochat qpc/v1/*.proto
