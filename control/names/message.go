package names

import (
	"errors"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// maxAliases is how far a chain of aliases is followed.
	maxAliases = 16
	// maxRecords is how many records of an answer are looked at.
	maxRecords = 2048
	// maxTTL is the longest that an answer is believed (RFC 8767, section 4).
	maxTTL = 7 * 24 * time.Hour
)

// question is what an answer must repeat.
type question struct {
	id    uint16
	name  string // as written, for those who guard themselves by mixed case
	kind  dnsmessage.Type
	class dnsmessage.Class
}

// readQuestion reads a question that asks for one thing. It is false for
// anything else.
func readQuestion(msg []byte) (question, bool) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || h.Response || h.OpCode != 0 {
		return question{}, false
	}
	return oneQuestion(&p, h.ID)
}

func oneQuestion(p *dnsmessage.Parser, id uint16) (question, bool) {
	q, err := p.Question()
	if err != nil || q.Class != dnsmessage.ClassINET {
		return question{}, false
	}
	if _, err := p.Question(); err != dnsmessage.ErrSectionDone {
		return question{}, false
	}
	return question{id, q.Name.String(), q.Type, q.Class}, true
}

// answer is what an answer says of its question's name.
type answer struct {
	question
	addrs []netip.Addr
	ttl   time.Duration // the shortest on the way to the addresses
}

// readAnswer reads a successful answer; of one that is cut off what is whole.
// It is false for what is none, or not well-formed.
func readAnswer(msg []byte, whole bool) (answer, bool) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || !h.Response || h.OpCode != 0 || h.RCode != dnsmessage.RCodeSuccess {
		return answer{}, false
	}
	q, ok := oneQuestion(&p, h.ID)
	if !ok {
		return answer{}, false
	}
	var r records
	for range maxRecords {
		if err = r.next(&p); err != nil {
			break
		}
	}
	if err != nil && err != dnsmessage.ErrSectionDone && whole {
		return answer{}, false
	}
	out := answer{question: q}
	out.addrs, out.ttl = r.follow(q.name)
	return out, true
}

// records are those of an answer that lead to addresses, by their owners.
type records struct {
	aliases map[string]alias
	addrs   map[string][]netip.Addr
	ttls    map[string]uint32 // shortest of the addresses
}

type alias struct {
	to  string
	ttl uint32
}

// errLength says that a record is no address. The Parser reads one all the same,
// out of what follows.
var errLength = errors.New("record is not as long as an address")

// next reads one record.
func (r *records) next(p *dnsmessage.Parser) error {
	h, err := p.AnswerHeader()
	if err != nil {
		return err
	}
	owner, ttl := normal(h.Name.String()), h.TTL
	if ttl > 1<<31-1 {
		ttl = 0 // RFC 2181, section 8
	}
	if h.Class != dnsmessage.ClassINET {
		return p.SkipAnswer()
	}
	switch h.Type {
	case dnsmessage.TypeA:
		if h.Length != 4 {
			return errLength
		}
		a, err := p.AResource()
		if err != nil {
			return err
		}
		r.add(owner, netip.AddrFrom4(a.A), ttl)
	case dnsmessage.TypeAAAA:
		if h.Length != 16 {
			return errLength
		}
		a, err := p.AAAAResource()
		if err != nil {
			return err
		}
		r.add(owner, netip.AddrFrom16(a.AAAA), ttl)
	case dnsmessage.TypeCNAME:
		c, err := p.CNAMEResource()
		if err != nil {
			return err
		}
		if r.aliases == nil {
			r.aliases = map[string]alias{}
		}
		if _, twice := r.aliases[owner]; !twice {
			r.aliases[owner] = alias{normal(c.CNAME.String()), ttl}
		}
	default:
		return p.SkipAnswer()
	}
	return nil
}

// add notes an address that can be somebody's.
func (r *records) add(owner string, a netip.Addr, ttl uint32) {
	if a.Is4In6() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
		return
	}
	if r.addrs == nil {
		r.addrs, r.ttls = map[string][]netip.Addr{}, map[string]uint32{}
	}
	if old, ok := r.ttls[owner]; !ok || ttl < old {
		r.ttls[owner] = ttl
	}
	r.addrs[owner] = append(r.addrs[owner], a)
}

// follow returns the addresses that a name leads to, and how long for.
func (r *records) follow(name string) ([]netip.Addr, time.Duration) {
	at, ttl := normal(name), uint32(maxTTL/time.Second)
	for range maxAliases {
		if addrs := r.addrs[at]; len(addrs) > 0 {
			return addrs, time.Duration(min(ttl, r.ttls[at])) * time.Second
		}
		next, ok := r.aliases[at]
		if !ok {
			break
		}
		at, ttl = next.to, min(ttl, next.ttl)
	}
	return nil, 0
}

// normal returns a name in lower case, without its final dot. Only ASCII has case
// (RFC 4343): to strings.ToLower the bytes of the Kelvin sign are a k.
func normal(name string) string {
	b := []byte(strings.TrimSuffix(name, "."))
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// printable reports whether a name consists of what host names and the names
// of services do, so that it can be shown and matched.
func printable(name string) bool {
	if name == "" {
		return false
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}
