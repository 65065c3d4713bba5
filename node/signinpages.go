package node

import (
	"errors"
	"net/http"

	"postern"
)

// What people are told when a sign-in does not go as it should.
var (
	badSignIn = page{
		status: http.StatusBadRequest, code: postern.CodeInvalid,
		title: "This is no sign-in of yours",
		text:  "It was not begun in this browser, or it is over already. Begin again.",
	}
	lateSignIn = page{
		status: http.StatusBadRequest, code: postern.CodeInvalid,
		title: "That took too long",
		text:  "A sign-in is good for five minutes. Begin again.",
	}
	badTarget = page{
		status: http.StatusBadRequest, code: postern.CodeInvalid,
		title: "This link leads elsewhere",
		text:  "A sign-in comes back to a page of this address, and the link that brought you here names another place.",
	}
	badIssuer = page{
		status: http.StatusBadRequest, code: postern.CodeInvalid,
		title: "Not from your portal",
		text:  "The link that brought you here wants you to sign in at a place that this address does not know.",
	}
	portalRefused = page{
		status: http.StatusForbidden, code: postern.CodeForbidden,
		title: "The portal did not let you in",
		text:  "What is behind this address has not been opened to you, or you have declined. Who manages the people of your company can change that.",
	}
	portalFails = page{
		status: http.StatusServiceUnavailable, code: postern.CodeUnavailable, retryAfter: 10,
		title: "Signing in does not work right now",
		text:  "The portal cannot be asked who you are. What needs no sign-in, and whoever is signed in already, is not affected.",
		link:  linkWorks,
	}
	portalNonsense = page{
		status: http.StatusBadGateway, code: postern.CodeUnauthorized,
		title: "The portal's answer is not good",
		text:  "What the portal says of you cannot be verified, so nobody has been signed in.",
	}
	clocksDiffer = page{
		status: http.StatusServiceUnavailable, code: postern.CodeUnavailable,
		title: "A clock is wrong",
	}
	notOfTenant = page{
		status: http.StatusForbidden, code: postern.CodeForbidden,
		title: "Not for you",
		text:  "You signed in at the portal, and nothing of this company has been opened to you. Who manages its people can change that.",
	}
	signedOut = page{
		status: http.StatusOK, title: "You are signed out",
		text: "This address does not know you any more. At the portal you may be signed in still: whoever opens this address again in this browser is let in then.",
	}
)

// An outcome is what people are told who meet err.
type outcome struct {
	err  error
	page page
}

// pageFor returns the page of the first of known that err is, or otherwise.
func pageFor(err error, otherwise page, known []outcome) page {
	for _, o := range known {
		if errors.Is(err, o.err) {
			return o.page
		}
	}
	return otherwise
}
