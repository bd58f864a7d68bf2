package commands

// single is what one message is decided in. The writer has one, which each call
// with a single message takes over: nothing in it outlives the call.
type single struct {
	to     recipient
	placed placed
	event  messageEvent
}

// reset empties the memory for the next message.
func (s *single) reset() *single {
	*s = single{}
	return s
}

func (d *delivery) newRecipient() *recipient {
	if d.single != nil {
		return &d.single.to
	}
	return new(recipient)
}

func (d *delivery) newPlaced() *placed {
	if d.single != nil {
		return &d.single.placed
	}
	return new(placed)
}

func (d *delivery) newEvent() *messageEvent {
	if d.single != nil {
		return &d.single.event
	}
	return new(messageEvent)
}
