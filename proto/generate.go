// Package proto holds the schema of the wire and of the log, qpc/v1/*.proto,
// and the command that turns it into the Go package qpcv1.
//
// It needs protoc with the well-known types (Debian: protobuf-compiler and
// libprotobuf-dev); protoc-gen-go comes from tools.mod. The generated files are
// committed, so that building the server needs neither; .ci/run makes them anew
// and compares.
package proto

//go:generate bash generate.sh
