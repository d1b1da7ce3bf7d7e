package sctp

import (
	"os"
	"testing"
)

// TestAssociation talks over loopback, in both families.
func TestAssociation(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for raw sockets")
	}
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		t.Run(host, func(t *testing.T) {
			addr, err := ResolveSCTPAddr("sctp", host+":9003")
			if err != nil {
				t.Fatal(err)
			}
			l, err := ListenSCTP("sctp", &SCTPAddr{Port: 9003})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			got := make(chan string, 1)
			go func() {
				c, err := l.AcceptSCTP()
				if err != nil {
					return
				}
				b := make([]byte, 64)
				n, _ := c.Read(b)
				got <- string(b[:n])
				c.Write([]byte("answer"))
				c.Close()
			}()
			c, err := DialSCTP("sctp", nil, addr)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write([]byte("question\n")); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 64)
			n, err := c.Read(b)
			if err != nil || string(b[:n]) != "answer" || <-got != "question\n" {
				t.Fatalf("read %q: %v", b[:n], err)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
