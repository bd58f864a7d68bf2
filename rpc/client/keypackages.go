package client

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"quicprochat/kt"
	pb "quicprochat/proto/qpcv1"
)

// UploadKeyPackages stores RFC 9420 KeyPackages of this device, bare or each in an
// MLSMessage: all of them or none, at most 100 of at most 16 KiB in one call. Their
// signature key must be the device's key. The reply tells how many the device has
// now; without packages that is all the call does. A push with KeyPackagesLow asks
// for more. Refusals: KEY_PACKAGE_INVALID and the reasons beside it, whose message
// says which package and why; KEY_PACKAGES_FULL.
func (c *Client) UploadKeyPackages(ctx context.Context, packages ...[]byte) (*pb.UploadKeyPackageResponse, error) {
	resp := new(pb.UploadKeyPackageResponse)
	return resp, c.Call(ctx, &pb.UploadKeyPackageRequest{KeyPackages: packages}, resp)
}

// FetchKeyPackage takes a KeyPackage of an identity, or one of each of its devices:
// nobody else gets it, unless it is a last resort. The reply is empty when there is
// none. The client has checked, with a proof unless transparency is off, that the
// devices are those of the identity; that a package is signed by its device is
// what an MLS library checks, with DeviceKey as the signature key to expect. Packages
// of a device that was revoked meanwhile are left out.
// Refusal: RATE when too many of this person were taken and there is no last
// resort.
func (c *Client) FetchKeyPackage(ctx context.Context, req *pb.FetchKeyPackageRequest) (*pb.FetchKeyPackageResponse, error) {
	resp := new(pb.FetchKeyPackageResponse)
	if err := c.Call(ctx, req, resp); err != nil {
		return resp, err
	}
	if len(resp.GetPackages()) == 0 || c.cfg.Transparency.Off {
		return resp, nil
	}
	identity, err := c.LookupIdentity(ctx, req.GetIdentityKey())
	if err != nil {
		return nil, err
	}
	kept := resp.Packages[:0]
	for _, p := range resp.GetPackages() {
		gone, err := c.leftSince(ctx, identity, p.GetDeviceKey())
		if err != nil {
			return nil, err
		}
		if !gone {
			kept = append(kept, p)
		}
	}
	clear(resp.Packages[len(kept):])
	resp.Packages = kept
	return resp, nil
}

// leftSince tells whether a device of which a package was taken was revoked before
// its identity was looked up, or the identity itself. When another KeySet leaves the
// device out, the server's word that its key is revoked is enough to do without the
// package; without that word the server gave one of a stranger.
func (c *Client) leftSince(ctx context.Context, identity *kt.Identity, device []byte) (gone bool, err error) {
	switch {
	case slices.ContainsFunc(identity.DeviceKeys(), func(key []byte) bool { return bytes.Equal(key, device) }):
		return false, nil
	case identity.Revocation != nil, identity.DeviceRevocations[string(device)] != nil:
		return true, nil
	}
	known, err := c.CheckRevocation(ctx, &pb.CheckRevocationRequest{Key: device})
	if err != nil {
		return false, err
	}
	if known.GetRevocation() == nil {
		return false, fmt.Errorf("%w: FetchKeyPackage: a package of a device that the log does not show for this identity", ErrProtocol)
	}
	return true, nil
}
