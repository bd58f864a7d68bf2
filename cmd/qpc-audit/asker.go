package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
)

// askFlags are those of the commands that ask a server about persons and keys.
type askFlags struct {
	sourceFlags `embed:""`
	trustFlags  `embed:""`
	homeFlags   `embed:""`
	State       string `env:"QPC_AUDIT_STATE" default:"qpc-audit.state" placeholder:"DIR" help:"Folder of what was verified: notes as they were signed, and evidence (${env})."`
}

// clientFile holds what a client, other than an auditor, remembers of a log.
const clientFile = "client.json"

// asker asks a server and checks the proofs of its answers.
type asker struct {
	dial     dialer
	client   *client.Client // nil until connect
	verifier *kt.Verifier
	dir      string
	unlock   func()
	state    *kt.State
}

// asker opens what is remembered of a server's log.
func (f *askFlags) asker() (_ *asker, err error) {
	pinned, err := f.pin()
	if err != nil {
		return nil, err
	}
	policy, err := f.policy()
	if err != nil {
		return nil, err
	}
	a := &asker{dir: f.State, unlock: func() {}}
	defer func() {
		if err != nil {
			a.unlock()
		}
	}()
	if err := os.MkdirAll(f.State, 0o700); err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	if a.unlock, err = lockFile(filepath.Join(f.State, "LOCK.client")); err != nil {
		a.unlock = func() {}
		return nil, fmt.Errorf("state folder %s: %w", f.State, err)
	}
	if a.state, err = a.load(); err != nil {
		return nil, err
	}
	if a.dial, err = f.dialer(); err != nil {
		return nil, err
	}
	a.verifier = &kt.Verifier{Policy: policy, Freshness: f.Freshness}
	if pinned != nil {
		a.verifier.LogKey = pinned.key
	}
	return a, nil
}

func (a *asker) close() error {
	a.unlock()
	if a.client == nil {
		return nil
	}
	return a.client.Close()
}

// connect connects once; the client does so again by itself.
func (a *asker) connect(ctx context.Context) error {
	if a.client != nil {
		return nil
	}
	c, err := a.dial(ctx)
	if err != nil {
		return err
	}
	a.client, a.verifier.ServerName = c, c.ServerName()
	return nil
}

func (a *asker) load() (*kt.State, error) {
	content, err := os.ReadFile(filepath.Join(a.dir, clientFile))
	if errors.Is(err, fs.ErrNotExist) {
		return new(kt.State), nil
	}
	if err != nil {
		return nil, err
	}
	state, err := kt.ParseState(content)
	if err != nil {
		return nil, fmt.Errorf("%s can't be read: what the log showed before is not known any more; put it back from a copy, or remove it to begin anew", filepath.Join(a.dir, clientFile))
	}
	return state, nil
}

// ask sends a query and checks the answer. What holds is remembered; evidence is
// saved, and is a *findingError.
func (a *asker) ask(ctx context.Context, query kt.Query) (*kt.Answer, error) {
	query.Cosigned = !a.verifier.Policy.IsZero()
	question := a.state.Ask(query)
	request, err := question.Request()
	if err != nil {
		return nil, err
	}
	proof, err := a.fetch(ctx, query, request)
	if err != nil {
		return nil, remote(err)
	}
	if proof == nil {
		return nil, unsettled("the server sent no proof")
	}
	answer, err := a.verifier.Verify(a.state, question, proof, uint64(time.Now().UnixMilli()))
	if saveErr := a.save(); saveErr != nil {
		return nil, errors.Join(err, saveErr)
	}
	return answer, a.accuse(err)
}

// fetch asks the method that the query is for.
func (a *asker) fetch(ctx context.Context, query kt.Query, request *pb.ProofRequest) (*pb.KeyProof, error) {
	if query.Username != "" {
		answer := new(pb.ResolveUserResponse)
		err := a.client.Call(ctx, &pb.ResolveUserRequest{Username: query.Username, Proof: request}, answer)
		return answer.GetProof(), err
	}
	answer := new(pb.CheckRevocationResponse)
	err := a.client.Call(ctx, &pb.CheckRevocationRequest{Key: query.RevokedKey, Proof: request}, answer)
	return answer.GetProof(), err
}

// remote gives an error of a call its exit status.
func remote(err error) error {
	var refused *client.StatusError
	if client.ReasonOf(err) == pb.Reason_LOG_GENERATION {
		return finding(kt.StepConfig, "the log was begun anew (%v): its operator says that its newest part was lost and disowns what was signed; to go on, after asking the operator, use another --state", err)
	}
	if errors.As(err, &refused) {
		return &exitError{exitUnreachable, fmt.Errorf("the server refuses: %w", err)}
	}
	return &unreachableError{err}
}

// save keeps the state.
func (a *asker) save() error {
	content, err := a.state.Marshal()
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(a.dir, clientFile), append(content, '\n'), 0o600)
}

// accuse saves the bundle of evidence.
func (a *asker) accuse(err error) error {
	var wrong *kt.EvidenceError
	var anew *kt.NewGenerationError
	switch {
	case errors.As(err, &anew):
		return finding(kt.StepConfig, "%v: its operator says that its newest part was lost and disowns what was signed; to go on, after asking the operator, use another --state", err)
	case errors.Is(err, kt.ErrMalformed), errors.Is(err, kt.ErrIncomplete), errors.Is(err, kt.ErrNote), errors.Is(err, kt.ErrLogKey):
		return unsettled("the server's answer proves nothing: %v", err)
	case !errors.As(err, &wrong):
		return err
	}
	f := finding(wrong.Step, "%s", wrong.Detail)
	bundle := wrong.Bundle()
	if bundle == nil {
		return f
	}
	content, err := bundle.Marshal()
	if err != nil {
		return errors.Join(f, err)
	}
	f.File = filepath.Join(a.dir, "evidence-"+time.Now().UTC().Format("20060102T150405.000")+".json")
	if err := replaceFile(f.File, append(content, '\n'), 0o600); err != nil {
		f.File = ""
		return errors.Join(f, err)
	}
	return f
}

// writeBundle saves a proof that held.
func writeBundle(answer *kt.Answer, file string) error {
	content, err := answer.Bundle().Marshal()
	if err != nil {
		return err
	}
	return replaceFile(file, append(content, '\n'), 0o600)
}
