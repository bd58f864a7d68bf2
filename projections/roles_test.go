package projections

import (
	"slices"
	"testing"

	pb "quicprochat/proto/qpcv1"
)

func roleChanged(name string, role pb.Role, actor *pb.Actor) *pb.RoleChanged {
	id := accountID(name)
	return &pb.RoleChanged{AccountId: id[:], Role: role, Actor: actor}
}

func bySession(name string) *pb.Actor {
	id := accountID(name)
	return &pb.Actor{Way: pb.Actor_SESSION, AccountId: id[:]}
}

func TestRoles(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.register("alice", "bob", "carol")
	socket, directory := &pb.Actor{Way: pb.Actor_SOCKET}, &pb.Actor{Way: pb.Actor_DIRECTORY}
	role := func(name string, want pb.Role) {
		t.Helper()
		if got, err := RoleOf(w.reader(), accountID(name)); err != nil || got != want {
			t.Errorf("%s is %v, want %v (%v)", name, got, want, err)
		}
	}
	role("alice", pb.Role_USER)
	role("nobody", pb.Role_USER)
	w.do(roleChanged("alice", pb.Role_ADMIN, socket))
	w.do(roleChanged("bob", pb.Role_ADMIN, bySession("alice")))
	w.do(roleChanged("bob", pb.Role_MODERATOR, directory))
	role("alice", pb.Role_ADMIN)
	role("bob", pb.Role_MODERATOR)
	role("carol", pb.Role_USER)

	w.refuse(roleChanged("nobody", pb.Role_ADMIN, socket), "account does not exist")
	w.refuse(roleChanged("alice", pb.Role_ADMIN, socket), "has this role")
	w.refuse(roleChanged("carol", pb.Role_USER, socket), "has this role")
	w.refuse(roleChanged("carol", pb.Role_ROLE_UNSPECIFIED, socket), "role 0")
	w.refuse(roleChanged("carol", 4, socket), "role 4")
	w.refuse(roleChanged("carol", pb.Role_ADMIN, nil), "actor of way 0")
	w.refuse(roleChanged("carol", pb.Role_ADMIN, &pb.Actor{Way: pb.Actor_SESSION}), "actor's account id")
	w.refuse(roleChanged("carol", pb.Role_ADMIN, bySession("carol")), "actor is a user")
	w.refuse(roleChanged("carol", pb.Role_ADMIN, &pb.Actor{Way: pb.Actor_SOCKET, AccountId: make([]byte, 16)}), "machine")
	w.refuse(&pb.RoleChanged{AccountId: make([]byte, 15), Role: pb.Role_ADMIN, Actor: socket}, "account id")

	w.do(roleChanged("alice", pb.Role_USER, bySession("bob")))
	role("alice", pb.Role_USER)
	if w.rows(prefixRole) != 1 {
		t.Errorf("%d rows", w.rows(prefixRole))
	}
}

func TestRoleHolders(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	names := []string{"alice", "bob", "carol", "dave", "erin"}
	w.register(names...)
	var want []ID
	for _, name := range names[1:] {
		w.do(roleChanged(name, pb.Role_MODERATOR, &pb.Actor{Way: pb.Actor_SOCKET}))
		want = append(want, accountID(name))
	}
	slices.SortFunc(want, func(a, b ID) int { return slices.Compare(a[:], b[:]) })
	for limit := 1; limit <= 5; limit++ {
		var got []ID
		for {
			after := ID{}
			if len(got) > 0 {
				after = got[len(got)-1]
			}
			page, err := RoleHolders(w.reader(), after, limit)
			if err != nil || len(page) > limit {
				t.Fatalf("%d holders, %v", len(page), err)
			}
			if len(page) == 0 {
				break
			}
			for _, h := range page {
				got = append(got, h.Account)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages of %d: %x, want %x", limit, got, want)
		}
	}
}
