package statement

import "encoding/binary"

// encoder builds the signed bytes of a statement.
type encoder []byte

// begin starts a statement: label, zero byte, server name. The capacity suits
// all statements but a KeySet with a hybrid key.
func begin(label, serverName string) encoder {
	e := make(encoder, 0, 384)
	e = append(e, label...)
	e = append(e, 0)
	return e.text(serverName)
}

func (e encoder) bytes(field []byte) encoder {
	return append(binary.BigEndian.AppendUint32(e, uint32(len(field))), field...)
}

func (e encoder) text(field string) encoder {
	return append(binary.BigEndian.AppendUint32(e, uint32(len(field))), field...)
}

func (e encoder) uint32(v uint32) encoder {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(e, 4), v)
}

func (e encoder) uint64(v uint64) encoder {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(e, 8), v)
}
