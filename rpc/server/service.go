package server

import (
	"quicprochat/commands"
	"quicprochat/commands/datadir"
	"quicprochat/kt"
	"quicprochat/rpc"
	"quicprochat/rpc/auth"
	"quicprochat/rpc/push"
)

// service is what answers requests once the engine has caught up.
type service struct {
	serverName string
	engine     *commands.Engine
	ceremonies *auth.Ceremonies
	hub        *push.Hub
	vrf        *kt.VRFPrivateKey
	suites     commands.KeyPackageSuites
	frank      *commands.FrankKey
	handlers   map[uint16]handler
	teller     *teller
}

// newService ties engine, ceremonies and hub together.
func newService(d *datadir.Dir, serverName string, engine *commands.Engine, c Config) (*service, error) {
	handlers, err := bindAll(rpc.Methods(), bindings)
	if err != nil {
		return nil, err
	}
	ceremonies, err := auth.New(auth.Options{ServerName: serverName, Secrets: d.Secrets, Engine: engine})
	if err != nil {
		return nil, err
	}
	s := &service{
		serverName: serverName, engine: engine, ceremonies: ceremonies,
		vrf: kt.NewVRFPrivateKey(d.Secrets.VRFSeed), handlers: handlers, suites: c.MLSSuites,
		frank: commands.NewFrankKey(datadir.FrankVersion, d.Secrets.FrankKey),
		hub:   push.NewHub(push.Options{Payload: engine.Payload, Logger: c.Logger}),
	}
	s.teller = newTeller(engine, s.hub, c.Logger)
	engine.OnPublish(s.published)
	return s, nil
}

// published passes on what became visible. It is called by the goroutine that
// releases replies, and does not block.
func (s *service) published(p commands.Published) {
	messages := make([]push.Message, len(p.Messages))
	for i, m := range p.Messages {
		messages[i] = push.Message{Device: m.DeviceKey, Owner: m.Owner, ID: m.MessageID, Seq: m.Seq, Size: m.Size, Control: m.Control,
			Channel: m.Channel, ChannelSeq: m.ChannelSeq, Welcome: m.Welcome}
	}
	s.hub.Publish(messages, p.Ended)
	for _, change := range p.Members {
		s.teller.note(change)
	}
	if len(p.Low) > 0 {
		s.hub.LowOnKeyPackages(p.Low)
	}
}

// close ends what tells clients of news. Connections must be closed before.
func (s *service) close() {
	s.teller.close()
	s.hub.Close()
}
