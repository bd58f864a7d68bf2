package sim

import "regexp"

// control is a server, or client, with one promise taken out: worlds that do not
// notice prove nothing.
type control struct {
	name string
	// sabotage is what runs before the line seam of a source file while the control
	// is switched on; none for a control of the harness itself.
	file, seam, sabotage string
	// caught is what the violation must say, in one of its lines.
	caught *regexp.Regexp
	// nightly controls are lived in the scales nightly and release alone.
	nightly bool
}

// lyingSync is the control that the simulated disk is, not the server.
const lyingSync = "lying-sync"

// controls is the table. Each sabotage is the least that breaks its promise.
var controls = []control{
	{
		name:   lyingSync,
		caught: regexp.MustCompile(`acknowledged and is lost|acknowledged records are lost`),
	},
	{
		name: "ack-before-sync", file: "commands/acker.go",
		seam: "\t\t\terr := g.pending.Wait()\n",
		sabotage: `			for _, c := range g.calls {
				c.release()
			}
			e.queue.done(len(g.calls), g.bytes)
			g.calls, g.bytes = g.calls[:0], 0
`,
		caught: regexp.MustCompile(`acknowledged and (is lost|lay beyond the anchor)`),
	},
	{
		name: "anchor-after-ack", file: "commands/acker.go",
		seam: "\t\te.anchor(round)\n",
		sabotage: `			var late group
			for _, g := range round {
				if g.pending != nil {
					late.pending = g.pending
				}
				e.publishGroup(g)
			}
			e.anchor([]*group{&late})
			continue
`,
		caught: regexp.MustCompile(`events are published and \d+ anchored|acknowledged and lay beyond the anchor`),
	},
	{
		name: "dropped-receipt", file: "commands/receipts.go",
		seam:     "\tif err != nil || !found {\n",
		sabotage: "\t\treturn nil, nil\n",
		caught:   regexp.MustCompile(`had an effect twice|is stored \d+ times|a repeated request was answered with`),
	},
	{
		name: "views-ahead", file: "projections/syncfs.go",
		seam:     "\tif err := f.mark.wait(f.size); err != nil {\n",
		sabotage: "\t\treturn nil\n",
		caught:   regexp.MustCompile(`the views were ahead of the log`),
	},
	{
		name: "clock-in-apply", file: "projections/enqueue.go",
		seam:     "\tfor _, target := range ev.GetTargets() {\n",
		sabotage: "\t\tit.EnqueuedMS = uint64(wallClock().UnixMilli())\n",
		caught:   regexp.MustCompile(`the live views have digest`),
	},

	{
		name: "anchor-not-synced", file: "log/anchor.go",
		seam:     "\tif err := a.file.SyncData(); err != nil {\n",
		sabotage: "\t\ta.newest, a.next = h, 1-a.next\n\t\treturn true, nil\n",
		caught:   regexp.MustCompile(`the anchor on disk says`),
	},
	{
		name: "shown-before-anchored", file: "commands/writer.go",
		seam:     "\tg.snap = w.views.Snapshot()\n",
		sabotage: "\t\tw.e.publish(w.views.Snapshot())\n",
		caught:   regexp.MustCompile(`item \d+ was shown before it was anchored`),
	},
	{
		name: "page-out-of-order", file: "commands/window.go",
		seam:     "\treturn envelopes\n",
		sabotage: "\t\tslices.Reverse(envelopes)\n",
		caught:   regexp.MustCompile(`item \d+ follows item \d+ in a page`),
	},
	{
		name: "page-with-a-hole", file: "commands/window.go",
		seam:     "\t\t\texpired := item.ExpiresMS <= r.now\n",
		sabotage: "\t\t\tif item.Seq%7 == 0 {\n\t\t\t\tlast = item.Seq\n\t\t\t\tcontinue\n\t\t\t}\n",
		caught:   regexp.MustCompile(`item \d+ \(\w+\) is missing in a page`),
	},
	{
		name: "confirmation-lost", file: "commands/window.go",
		seam:     "\tif confirms {\n",
		sabotage: "\t\treturn w, nil\n",
		caught:   regexp.MustCompile(`item \d+ was confirmed and stayed`),
	},
	{
		name: "receipts-expire-early", file: "commands/expire.go",
		seam:     "\tdue, err := projections.ExpiredReceipts(tx.View(), before)\n",
		sabotage: "\t\tbefore = tx.Now()\n",
		caught:   regexp.MustCompile(`had an effect twice|is stored \d+ times|a repeated request was answered with`),
	},
	{
		name: "payload-released-early", file: "projections/drain.go",
		seam:     "\t\tq.DrainedBytes += uint64(it.Size)\n",
		sabotage: "\t\tb.released = append(b.released, PayloadRef{Owner: it.Owner, ID: it.MessageID})\n",
		caught:   regexp.MustCompile(`payload \w+ of an item that waits: found false|is missing in a page`),
	},
	{
		name: "payload-kept", file: "commands/writer.go",
		seam:     "\tfor _, ref := range g.batch.Released() {\n",
		sabotage: "\t\tg.batch.Released()\n",
		caught:   regexp.MustCompile(`payload \w+ was released and is still there`),
	},
	{
		name: "sessions-survive-password", file: "projections/sessions.go",
		seam:     "\t\tif token == kept {\n",
		sabotage: "\t\tif token != kept {\n\t\t\tcontinue\n\t\t}\n",
		caught:   regexp.MustCompile(`a session that ended: found true`),
	},
	{
		name: "wrong-root", file: "log/tree.go",
		seam:     "\t\th = nodeHash(&roots[i], &h)\n",
		sabotage: "\t\th = nodeHash(&h, &roots[i])\n\t\tcontinue\n",
		caught:   regexp.MustCompile(`the log's root is \w+, tlog's is`),
	},
	{
		name: "clock-gap-unasked", file: "commands/clock.go",
		seam:     "\tif accept || (last.Sub(wall) <= maxAhead && wall.Sub(last) <= maxGap) {\n",
		sabotage: "\t\treturn nil\n",
		caught:   regexp.MustCompile(`it was not asked whether the time is right`),
	},
	{
		name: "clock-jump-ignored", file: "commands/clock.go",
		seam:     "\tif jumped(c.drift()) {\n",
		sabotage: "\t\treturn nil\n",
		caught:   regexp.MustCompile(`was accepted while the server's clock was wrong`),
	},
	{
		name: "clock-jump-believed", file: "commands/clock.go",
		seam:     "\tif drift := c.driftOf(wall); jumped(drift) {\n",
		sabotage: "\t\treturn max(uint64(max(wall.UnixMilli(), 0)), c.last.Load())\n",
		caught:   regexp.MustCompile(`item \d+ \(\w+\) is missing in a page|is said to be of`),
	},
	{
		name: "retry-under-a-new-id", file: "rpc/client/call.go",
		seam:     "\t\tif werr := backOff(ctx, c.ctx, n, err); werr != nil {\n",
		sabotage: "\t\tif err := c.buildFrame(buf, &a); err != nil {\n\t\t\treturn err\n\t\t}\n",
		caught:   regexp.MustCompile(`is stored \d+ times`),
	},

	{
		name: "package-kept", file: "projections/keypackages.go",
		seam:     "\tif err := b.removePackage(device.Key, s, number); err != nil {\n",
		sabotage: "\t\treturn nil\n",
		caught:   regexp.MustCompile(`a KeyPackage was handed out twice|KeyPackage \d+ was taken, and did not wait|KeyPackages wait at a device`),
	},
	{
		name: "ban-ignored", file: "commands/caller.go", nightly: true,
		seam:     "\tbanned, err := projections.BannedAt(r, account, now)\n",
		sabotage: "\t\treturn nil\n",
		caught:   regexp.MustCompile(`somebody who is banned (logged in|was accepted)|was banned, and a`),
	},
	{
		name: "epoch-unchecked", file: "commands/channelpost.go", nightly: true,
		seam:     "\tswitch {\n\tcase expected == nil:\n",
		sabotage: "\t\treturn nil\n",
		caught:   regexp.MustCompile(`a commit of epoch \d+ led to epoch \d+|two commits of epoch \d+ were acknowledged`),
	},
	{
		name: "member-left-out", file: "commands/channelpost.go", nightly: true,
		seam:     "\trooms := make([]room, len(devices))\n",
		sabotage: "\t\tdevices = devices[:len(devices)/2]\n",
		caught:   regexp.MustCompile(`post \d+ leaves out \d+ devices of a member`),
	},
	{
		name: "removed-in-fan-out", file: "projections/channelmembers.go",
		seam:     "\treturn b.remove(memberKey(b.scratch(), c.ID, account))\n",
		sabotage: "\t\treturn nil\n",
		caught:   regexp.MustCompile(`for a device of somebody else|was out of a channel|member \{`),
	},
	{
		name: "removed-device-served", file: "projections/revocations.go",
		seam:     "\tfor i := range sessions {\n",
		sabotage: "\t\tsessions = nil\n",
		caught:   regexp.MustCompile(`a session that ended: found true|a device of \w+ was removed, and`),
	},
	{
		name: "every-tag-right", file: "commands/report.go", nightly: true,
		seam:     "\tif m.GetFrank() == nil {\n",
		sabotage: "\t\treturn m.GetFrank() != nil, nil\n",
		caught:   regexp.MustCompile(`about a message that never came is proved`),
	},
}
