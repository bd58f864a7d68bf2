package server

import (
	"context"
	"time"

	"quicprochat/commands"
	pb "quicprochat/proto/qpcv1"
)

// uploadKeyPackage serves method 300: packages are read and verified here.
func (c *call) uploadKeyPackage(ctx context.Context, req *pb.UploadKeyPackageRequest) (*pb.UploadKeyPackageResponse, error) {
	return decided[*pb.UploadKeyPackageResponse](ctx, c, func() (*commands.Command, error) {
		return commands.NewUploadKeyPackage(c.method.Rule, req, c.service.suites)
	})
}

// fetchKeyPackage serves method 301. An empty bucket is no refusal here: who has
// a last resort gives that. The bytes are read after the commit, for a repeated
// call too: receipts hold none.
func (c *call) fetchKeyPackage(ctx context.Context, req *pb.FetchKeyPackageRequest) (*pb.FetchKeyPackageResponse, error) {
	resp, err := decided[*pb.FetchKeyPackageResponse](ctx, c, func() (*commands.Command, error) {
		return commands.NewFetchKeyPackage(c.method.Rule, req, c.keyPackageBudget(req))
	})
	if err != nil || len(resp.GetPackages()) == 0 {
		return resp, err
	}
	owner, found, err := commands.KeyPackageOwner(c.view, req.GetIdentityKey())
	if err == nil && !found { // registered since the call began
		if err = c.refreshView(); err == nil {
			owner, _, err = commands.KeyPackageOwner(c.view, req.GetIdentityKey())
		}
	}
	if err != nil {
		return nil, err
	}
	return resp, commands.FillKeyPackages(c.service.engine.Payload, owner, resp)
}

// Budgets of FetchKeyPackage. They bound how fast somebody's packages can be used
// up by one requester, and by all together.
var (
	packagePairRate   = budget{burst: 6, interval: 10 * time.Minute}
	packageTargetRate = budget{burst: 100, interval: time.Hour / 100}
)

// keyPackageBudget charges a call to (requester, target) and to the target.
func (c *call) keyPackageBudget(req *pb.FetchKeyPackageRequest) commands.Budget {
	if c.server.unlimited || len(req.GetIdentityKey()) != commands.KeySize {
		return commands.Budget{}
	}
	target := [commands.KeySize]byte(req.GetIdentityKey())
	wait, ok := c.server.buckets.take(c.server.elapsed(),
		charge{key: bucketKey{kind: kindPackagePair, a: c.caller.Account, b: target}, budget: packagePairRate, tokens: 1},
		charge{key: bucketKey{kind: kindPackageTarget, b: target}, budget: packageTargetRate, tokens: 1},
	)
	if ok {
		return commands.Budget{}
	}
	return commands.Budget{Spent: true, RetryAfterMS: uint64(wait/time.Millisecond) + 1}
}
