//go:build e2e

package e2e

import (
	stdcipher "crypto/cipher"
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"hash"
	"time"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"
)

// The handshake of WireGuard (whitepaper, section 5.4), plainly, for clients that are many
// and do nothing else. Messages are little endian:
//
//	initiation  1 sender ephemeral static(48) timestamp(28) mac1 mac2
//	response    2 sender receiver ephemeral empty(16) mac1 mac2
//	cookie      3 receiver nonce(24) cookie(32)
//	data        4 receiver counter(8) packet(16, empty)
const (
	initiationType = 1
	responseType   = 2
	cookieType     = 3
	dataType       = 4

	initiationSize = 148
	responseSize   = 92
	cookieSize     = 64
	keepaliveSize  = 32
)

// A party is one end's keys, and the other end's.
type party struct {
	private *ecdh.PrivateKey
	public  [32]byte
	peer    *ecdh.PublicKey
	static  []byte // the secret shared with the peer
	cookie  []byte // that the peer gave, for mac2; nil: none
	mac1    []byte // of the last message, which a cookie is bound to
}

func newParty(private, peer [32]byte) (*party, error) {
	key, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil {
		return nil, err
	}
	p := &party{private: key, public: [32]byte(key.PublicKey().Bytes())}
	if p.peer, err = ecdh.X25519().NewPublicKey(peer[:]); err == nil {
		p.static, err = key.ECDH(p.peer)
	}
	return p, err
}

// A session is what a handshake leads to. Only keepalives are sent.
type session struct {
	send, receive stdcipher.AEAD
	remote        uint32 // the peer's index
	counter       uint64
}

// A noise is the chaining key and the hash of a handshake under way.
type noise struct{ chain, hash [32]byte }

func startHandshake(responder []byte) noise {
	chain := blake2s.Sum256([]byte("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"))
	s := noise{chain, blake2s.Sum256(append(chain[:], "WireGuard v1 zx2c4 Jason@zx2c4.com"...))}
	s.mixHash(responder)
	return s
}

func (s *noise) mixHash(b []byte) { s.hash = blake2s.Sum256(append(s.hash[:], b...)) }

// mixKey takes in into the chaining key and returns two more keys that follow from it.
func (s *noise) mixKey(in []byte) (k1, k2 [32]byte) {
	t := keyed(s.chain[:], in)
	s.chain = keyed(t[:], []byte{1})
	k1 = keyed(t[:], append(s.chain[:], 2))
	k2 = keyed(t[:], append(k1[:], 3))
	return k1, k2
}

func keyed(key, in []byte) (out [32]byte) {
	m := hmac.New(func() hash.Hash { h, _ := blake2s.New256(nil); return h }, key)
	m.Write(in)
	return [32]byte(m.Sum(nil))
}

func (s *noise) seal(key [32]byte, plain []byte) []byte {
	out := aead(key).Seal(nil, make([]byte, 12), plain, s.hash[:])
	s.mixHash(out)
	return out
}

func (s *noise) open(key [32]byte, sealed []byte) ([]byte, error) {
	out, err := aead(key).Open(nil, make([]byte, 12), sealed, s.hash[:])
	s.mixHash(sealed)
	return out, err
}

func aead(key [32]byte) stdcipher.AEAD {
	a, err := chacha20poly1305.New(key[:])
	if err != nil {
		panic(err)
	}
	return a
}

// shared returns the secret that two keys share.
func shared(private *ecdh.PrivateKey, public []byte) ([]byte, error) {
	key, err := ecdh.X25519().NewPublicKey(public)
	if err != nil {
		return nil, err
	}
	return private.ECDH(key)
}

// An opening is an initiation that was sent and not answered yet.
type opening struct {
	noise
	ephemeral *ecdh.PrivateKey
}

// initiate returns an initiation from the end with that index.
func (p *party) initiate(index uint32, now time.Time) ([]byte, *opening, error) {
	e, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	o := &opening{startHandshake(p.peer.Bytes()), e}
	msg := binary.LittleEndian.AppendUint32(make([]byte, 0, initiationSize), initiationType)
	msg = binary.LittleEndian.AppendUint32(msg, index)
	msg = append(msg, e.PublicKey().Bytes()...)
	o.mixKey(e.PublicKey().Bytes())
	o.mixHash(e.PublicKey().Bytes())
	secret, err := e.ECDH(p.peer)
	if err != nil {
		return nil, nil, err
	}
	key, _ := o.mixKey(secret)
	msg = append(msg, o.seal(key, p.public[:])...)
	key, _ = o.mixKey(p.static)
	stamp := binary.BigEndian.AppendUint64(nil, 1<<62+10+uint64(now.Unix())) // TAI64N
	stamp = binary.BigEndian.AppendUint32(stamp, uint32(now.Nanosecond()))
	return p.addMACs(append(msg, o.seal(key, stamp)...)), o, nil
}

// conclude makes a session of the answer to an opening.
func (p *party) conclude(o *opening, msg []byte) (*session, error) {
	s := o.noise // an answer that is none leaves it as it was
	ephemeral := msg[12:44]
	s.mixKey(ephemeral)
	s.mixHash(ephemeral)
	for _, private := range []*ecdh.PrivateKey{o.ephemeral, p.private} {
		secret, err := shared(private, ephemeral)
		if err != nil {
			return nil, err
		}
		s.mixKey(secret)
	}
	tau, key := s.mixKey(make([]byte, 32))
	s.mixHash(tau[:])
	if _, err := s.open(key, msg[44:60]); err != nil {
		return nil, err
	}
	send, receive := s.split()
	return &session{send: aead(send), receive: aead(receive), remote: binary.LittleEndian.Uint32(msg[4:])}, nil
}

// split returns the initiator's keys: to send, and to receive with.
func (s *noise) split() (send, receive [32]byte) {
	receive, _ = s.mixKey(nil)
	return s.chain, receive
}

// respond returns the answer to an initiation of the peer's from the end with that index,
// and the session.
func (p *party) respond(index uint32, msg []byte) ([]byte, *session, error) {
	s := startHandshake(p.public[:])
	ephemeral := msg[8:40]
	s.mixKey(ephemeral)
	s.mixHash(ephemeral)
	secret, err := shared(p.private, ephemeral)
	if err != nil {
		return nil, nil, err
	}
	key, _ := s.mixKey(secret)
	who, err := s.open(key, msg[40:88])
	if err != nil || [32]byte(who) != [32]byte(p.peer.Bytes()) {
		return nil, nil, errors.Join(errors.New("an initiation from somebody else"), err)
	}
	key, _ = s.mixKey(p.static)
	if _, err := s.open(key, msg[88:116]); err != nil {
		return nil, nil, err
	}
	e, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	remote := binary.LittleEndian.Uint32(msg[4:])
	answer := binary.LittleEndian.AppendUint32(make([]byte, 0, responseSize), responseType)
	answer = binary.LittleEndian.AppendUint32(answer, index)
	answer = binary.LittleEndian.AppendUint32(answer, remote)
	answer = append(answer, e.PublicKey().Bytes()...)
	s.mixKey(e.PublicKey().Bytes())
	s.mixHash(e.PublicKey().Bytes())
	for _, public := range [][]byte{ephemeral, who} {
		if secret, err = shared(e, public); err != nil {
			return nil, nil, err
		}
		s.mixKey(secret)
	}
	tau, key := s.mixKey(make([]byte, 32))
	s.mixHash(tau[:])
	answer = append(answer, s.seal(key, nil)...)
	receive, send := s.split()
	return p.addMACs(answer), &session{send: aead(send), receive: aead(receive), remote: remote}, nil
}

// addMACs appends mac1, and mac2 by the cookie, if there is one (section 5.4.4).
func (p *party) addMACs(msg []byte) []byte {
	key := blake2s.Sum256(append([]byte("mac1----"), p.peer.Bytes()...))
	p.mac1 = mac(key[:], msg)
	msg = append(msg, p.mac1...)
	if p.cookie == nil {
		return append(msg, make([]byte, blake2s.Size128)...)
	}
	return append(msg, mac(p.cookie, msg)...)
}

func mac(key, msg []byte) []byte {
	h, err := blake2s.New128(key)
	if err != nil {
		panic(err)
	}
	h.Write(msg)
	return h.Sum(nil)
}

// takeCookie takes the cookie of a peer that is busy (section 5.4.7), with which it takes
// the next message.
func (p *party) takeCookie(msg []byte) error {
	key := blake2s.Sum256(append([]byte("cookie--"), p.peer.Bytes()...))
	a, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		return err
	}
	p.cookie, err = a.Open(nil, msg[8:32], msg[32:64], p.mac1)
	return err
}

// keepalive returns the next packet of the session: an empty one.
func (s *session) keepalive() []byte {
	msg := binary.LittleEndian.AppendUint32(make([]byte, 0, keepaliveSize), dataType)
	msg = binary.LittleEndian.AppendUint32(msg, s.remote)
	msg = binary.LittleEndian.AppendUint64(msg, s.counter)
	nonce := binary.LittleEndian.AppendUint64(make([]byte, 4, 12), s.counter)
	s.counter++
	return s.send.Seal(msg, nonce, nil, nil)
}

// hears reports whether msg, a data message, is the session's.
func (s *session) hears(msg []byte) bool {
	_, err := s.receive.Open(nil, append(make([]byte, 4, 12), msg[8:16]...), msg[16:], nil)
	return err == nil
}
