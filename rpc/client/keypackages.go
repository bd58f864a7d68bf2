package client

import (
	"context"
	"fmt"
	"slices"

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
// what an MLS library checks, with DeviceKey as the signature key to expect.
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
	devices := identity.DeviceKeys()
	for _, p := range resp.GetPackages() {
		if !slices.ContainsFunc(devices, func(key []byte) bool { return string(key) == string(p.GetDeviceKey()) }) {
			return nil, fmt.Errorf("%w: FetchKeyPackage: a package of a device that the log does not show for this identity", ErrProtocol)
		}
	}
	return resp, nil
}
