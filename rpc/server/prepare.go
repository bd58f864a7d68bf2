package server

import (
	"log/slog"

	"quicprochat/commands/datadir"
)

// PrepareCertificates makes what is missing of a data directory's own CA and
// certificate, as Boot does, and returns the path of the file that clients pin.
// With it a directory is complete before the first start: its CA can be handed
// out early. d stays open.
func PrepareCertificates(d *datadir.Dir, serverName string, logger *slog.Logger) (caFile string, err error) {
	id, err := openIdentity(d, "", "", serverName, logger)
	if err != nil {
		return "", err
	}
	return id.pinFile(), nil
}

// pinFile is the path of the certificate that clients pin: that of the
// server's own authority, or the operator's where the operator gave one.
func (id *identity) pinFile() string {
	if id.isOwn() {
		return id.caPath
	}
	return id.certPath
}
