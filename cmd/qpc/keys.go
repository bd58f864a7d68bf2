package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"quicprochat/kt/statement"
	pb "quicprochat/proto/qpcv1"
	"quicprochat/rpc/client"
)

type keysCommand struct {
	Upload keysUploadCommand `cmd:"" help:"Store MLS KeyPackages of this home's device, so that others can add it to groups."`
	Fetch  keysFetchCommand  `cmd:"" help:"Take a KeyPackage of a person, to add them to a group."`
	Count  keysCountCommand  `cmd:"" help:"Show how many KeyPackages of this home's device are left."`
}

type keysUploadCommand struct {
	Files []string `arg:"" help:"One KeyPackage each, as bytes (RFC 9420), bare or in an MLSMessage."`
}

func (keysUploadCommand) Help() string {
	return `qpc makes no MLS KeyPackages: an MLS program does, with the device key of this home as its signature key ('qpc whoami' shows it). Each package serves one person who adds this device to a group; one with the extension last_resort is kept for when no other is left. All files are stored, or none.`
}

// Run uploads the files.
func (cmd keysUploadCommand) Run(ctx context.Context, a *app) error {
	var packages [][]byte
	for _, file := range cmd.Files {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		packages = append(packages, content)
	}
	return a.uploadKeyPackages(ctx, packages)
}

func (a *app) uploadKeyPackages(ctx context.Context, packages [][]byte) error {
	_, _, c, err := a.openSession(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	resp, err := c.UploadKeyPackages(ctx, packages...)
	if err != nil {
		return err
	}
	if len(packages) > 0 && !a.JSON {
		fmt.Fprintf(a.stdout, "%d stored, %d were there already\n", resp.GetStored(), len(packages)-int(resp.GetStored()))
	}
	return a.printCounts(resp)
}

func (a *app) printCounts(resp *pb.UploadKeyPackageResponse) error {
	if a.JSON {
		counts := []map[string]any{}
		for _, n := range resp.GetCounts() {
			counts = append(counts, map[string]any{"cipher_suite": n.GetCipherSuite(), "single_use": n.GetSingleUse(), "last_resort": n.GetLastResort()})
		}
		return a.print(map[string]any{"stored": resp.GetStored(), "counts": counts, "cipher_suites": resp.GetCipherSuites()}, "")
	}
	for _, suite := range resp.GetCipherSuites() {
		var count pb.UploadKeyPackageResponse_Count
		for _, n := range resp.GetCounts() {
			if n.GetCipherSuite() == suite {
				count.SingleUse, count.LastResort = n.GetSingleUse(), n.GetLastResort()
			}
		}
		last := "no last resort"
		if count.GetLastResort() {
			last = "and a last resort"
		}
		if _, err := fmt.Fprintf(a.stdout, "cipher suite %d: %d for one use, %s\n", suite, count.GetSingleUse(), last); err != nil {
			return err
		}
	}
	return nil
}

type keysCountCommand struct{}

// Run shows the counts.
func (keysCountCommand) Run(ctx context.Context, a *app) error { return a.uploadKeyPackages(ctx, nil) }

type keysFetchCommand struct {
	Name       string `arg:"" help:"Username."`
	AllDevices bool   `help:"Take one of each of the person's devices, instead of one of the oldest that has any."`
	Suite      uint32 `placeholder:"N" help:"Cipher suite of the group. Default: the oldest package of any suite."`
	Dir        string `default:"." placeholder:"DIR" help:"Folder that the packages are written to, as NAME-DEVICE.kp with the first 8 digits of the device key."`
}

func (keysFetchCommand) Help() string {
	return `The server hands each KeyPackage out once: use it, or it is lost to its owner. Of one person a few can be taken in an hour; beyond that you get the person's last resort, which others may hold too, or are told to wait. No file is overwritten: the next package of a device is NAME-DEVICE-2.kp.`
}

// Run takes packages and writes them to files.
func (cmd keysFetchCommand) Run(ctx context.Context, a *app) error {
	name, err := statement.CanonicalUsername(cmd.Name)
	if err != nil {
		return usageError("%w", err)
	}
	if err := checkWritable(cmd.Dir); err != nil { // a package that can't be kept is lost
		return err
	}
	_, _, c, err := a.openSession(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	identity, err := a.identityOfName(ctx, c, name)
	if err != nil {
		return err
	}
	resp, err := c.FetchKeyPackage(ctx, &pb.FetchKeyPackageRequest{IdentityKey: identity, AllDevices: cmd.AllDevices, CipherSuite: cmd.Suite})
	if err != nil {
		return err
	}
	if len(resp.GetPackages()) == 0 {
		return &exitError{int(pb.Status_NotFound), fmt.Errorf("%s has no KeyPackage now: ask them to upload some", cmd.Name)}
	}
	var failed error
	for _, p := range resp.GetPackages() {
		file, err := writeNumbered(filepath.Join(cmd.Dir, fmt.Sprintf("%s-%x", name, p.GetDeviceKey()[:4])), ".kp", p.GetKeyPackage())
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		err = a.print(map[string]any{
			"file": file, "device_key": hex.EncodeToString(p.GetDeviceKey()), "cipher_suite": p.GetCipherSuite(),
			"size": len(p.GetKeyPackage()), "last_resort": p.GetLastResort(),
		}, "%s: cipher suite %d, %d bytes%s", file, p.GetCipherSuite(), len(p.GetKeyPackage()), lastResortNote(p))
		failed = errors.Join(failed, err)
	}
	return failed
}

func lastResortNote(p *pb.FetchKeyPackageResponse_Package) string {
	if p.GetLastResort() {
		return ", a last resort: others may hold it too"
	}
	return ""
}

// identityOfName proves which identity key a name has.
func (a *app) identityOfName(ctx context.Context, c *client.Client, name string) ([]byte, error) {
	person, err := c.LookupUser(ctx, name)
	if err != nil {
		return nil, err
	}
	if !person.Exists() {
		return nil, &exitError{int(pb.Status_NotFound), errors.New(absence(person))}
	}
	return person.Identity.Key, nil
}

// checkWritable tries whether files can be made in a folder.
func checkWritable(dir string) error {
	probe, err := os.CreateTemp(dir, ".qpc-*")
	if err != nil {
		return err
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// writeNumbered writes a file that was not there: base and ending, with a number
// between them where that one is taken.
func writeNumbered(base, ending string, content []byte) (name string, err error) {
	name = base + ending
	for n := 2; ; n++ {
		if err := writeNew(name, content); !errors.Is(err, fs.ErrExist) {
			return name, err
		}
		name = fmt.Sprintf("%s-%d%s", base, n, ending)
	}
}

// writeNew writes a file that only its owner can read, where none is.
func writeNew(name string, content []byte) error {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	return errors.Join(err, file.Close())
}
