// Makes or uses a passkey (Web Authentication Level 3): asks the node for options,
// hands them to the browser, and brings back what its authenticator made of them.
"use strict";

(() => {
  const button = document.getElementById("go");
  const status = document.getElementById("status");
  const enrol = button.dataset.kind === "enrol";
  const path = "/.well-known/postern/passkey" + (enrol ? "/enrol" : "");

  const say = (text) => { status.textContent = text; };

  const post = async (step, body) => {
    const answer = await fetch(path + step, {
      method: "POST",
      headers: { "Content-Type": "application/json", "Accept": "application/json" },
      body: JSON.stringify(body),
    });
    const json = await answer.json();
    if (!answer.ok) {
      throw new Refusal(json.detail || "This address refused.");
    }
    return json;
  };

  class Refusal extends Error {}

  // What follows is for browsers without the conversions of section 5.1.
  const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
  const text = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  const withBytes = (list) => (list || []).map((c) => ({ ...c, id: bytes(c.id) }));

  const creation = (o) => PublicKeyCredential.parseCreationOptionsFromJSON
    ? PublicKeyCredential.parseCreationOptionsFromJSON(o)
    : { ...o, challenge: bytes(o.challenge), user: { ...o.user, id: bytes(o.user.id) }, excludeCredentials: withBytes(o.excludeCredentials) };

  const request = (o) => PublicKeyCredential.parseRequestOptionsFromJSON
    ? PublicKeyCredential.parseRequestOptionsFromJSON(o)
    : { ...o, challenge: bytes(o.challenge), allowCredentials: withBytes(o.allowCredentials) };

  const json = (c) => {
    if (c.toJSON) {
      return c.toJSON();
    }
    const r = c.response;
    const response = { clientDataJSON: text(r.clientDataJSON) };
    for (const name of ["attestationObject", "authenticatorData", "signature", "userHandle"]) {
      if (r[name]) {
        response[name] = text(r[name]);
      }
    }
    return { id: c.id, rawId: text(c.rawId), type: c.type, response, clientExtensionResults: c.getClientExtensionResults() };
  };

  const run = async () => {
    const wish = enrol ? { code: button.dataset.code } : {};
    const options = (await post("/options", wish)).publicKey;
    say("Your browser asks you now.");
    const credential = enrol
      ? await navigator.credentials.create({ publicKey: creation(options) })
      : await navigator.credentials.get({ publicKey: request(options) });
    const done = enrol
      ? { code: button.dataset.code, credential: json(credential) }
      : { target: button.dataset.target, credential: json(credential) };
    return (await post("/finish", done)).next;
  };

  button.addEventListener("click", async () => {
    button.disabled = true;
    say("");
    try {
      const next = await run();
      say("Done.");
      location.replace(next);
    } catch (err) {
      if (err instanceof Refusal) {
        say(err.message);
      } else if (err.name === "InvalidStateError") {
        say("This device has a passkey for this address already.");
      } else if (err.name === "NotAllowedError" || err.name === "AbortError") {
        say("Nothing came of it: it was cancelled, took too long, or this device has no passkey for this address.");
      } else {
        say("It did not work. Check the connection and try again.");
      }
      button.disabled = false;
      button.focus();
    }
  });

  if (!window.PublicKeyCredential) {
    say("This browser knows no passkeys.");
    return;
  }
  button.disabled = false;
  button.focus();
})();
