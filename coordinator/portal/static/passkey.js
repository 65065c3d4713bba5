// Passkeys: a browser's own dialogues between two requests (Web Authentication
// Level 3, section 5.1). Where it has none, the pages show no button for it.
'use strict';
(() => {
  const able = window.PublicKeyCredential?.parseRequestOptionsFromJSON && window.PublicKeyCredential?.parseCreationOptionsFromJSON;
  if (!able) return;

  async function ask(url, body) {
    const response = await fetch(url, {
      method: 'POST',
      headers: { Accept: 'application/json', ...(body && { 'Content-Type': 'application/json' }) },
      body: body && JSON.stringify(body),
    });
    const answer = await response.json();
    if (!response.ok) throw answer; // a problem
    return answer;
  }

  // words says what went wrong, and what to do; undefined if nobody needs to know.
  function words(error) {
    if (error.detail) return [error.detail, error.hint];
    switch (error.name) {
      case 'AbortError': return undefined;
      case 'NotAllowedError': return ['no passkey was used', 'try again, or choose another way'];
      case 'InvalidStateError': return ['this device has a passkey of yours already', 'it is ready to be used'];
      case 'SecurityError': return ['this address cannot use passkeys', 'open the portal at its proper address'];
      case 'TypeError': return ['the portal did not answer', 'look at your connection and try again'];
    }
    return ['your browser could not do it', error.message];
  }

  const sentence = text => text ? text[0].toUpperCase() + text.slice(1) + (/[.?!]$/.test(text) ? '' : '.') : '';

  function say(place, error) {
    const said = words(error);
    place.replaceChildren();
    if (!said) return;
    const note = document.createElement('div');
    note.className = 'note bad';
    const body = document.createElement('div');
    const [detail, hint] = said.map(sentence);
    const first = document.createElement('p');
    first.append(Object.assign(document.createElement('b'), { textContent: detail }));
    body.append(first);
    if (hint) body.append(Object.assign(document.createElement('p'), { textContent: hint }));
    note.append(body);
    place.append(note);
  }

  // finishURL is where the answer goes, with the fields that go along: ID or ID:PARAMETER.
  function finishURL(area) {
    const url = new URL(area.dataset.finish, location.href);
    for (const pair of (area.dataset.with ?? '').split(' ').filter(Boolean)) {
      const [id, name] = pair.split(':');
      url.searchParams.set(name ?? id, document.getElementById(id).value.trim());
    }
    return url;
  }

  async function get(area, options) {
    const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(await ask(area.dataset.begin));
    const credential = await navigator.credentials.get({ publicKey, ...options });
    return ask(finishURL(area), credential.toJSON());
  }

  async function create(area, options) {
    const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(await ask(area.dataset.begin));
    const credential = await navigator.credentials.create({ publicKey, ...options });
    return ask(finishURL(area), credential.toJSON());
  }

  for (const area of document.querySelectorAll('[data-passkey]')) {
    const act = area.dataset.passkey === 'get' ? get : create;
    const button = area.querySelector('button');
    const says = area.querySelector('.says');
    let offer = new AbortController();
    area.hidden = false;

    button.addEventListener('click', async () => {
      offer.abort(); // one request for a passkey at a time
      button.disabled = true;
      says.replaceChildren();
      try {
        const { next } = await act(area, {});
        location.assign(next);
      } catch (error) {
        say(says, error);
        button.disabled = false;
        button.focus();
        if (act === get) suggest();
      }
    });

    // suggest offers passkeys where the login is filled in, without a dialogue, on a
    // page that has such a place.
    async function suggest() {
      if (area.dataset.suggest === undefined) return;
      if (!await PublicKeyCredential.isConditionalMediationAvailable?.()) return;
      offer = new AbortController();
      try {
        const { next } = await get(area, { mediation: 'conditional', signal: offer.signal });
        location.assign(next);
      } catch (error) {
        if (error.detail) say(says, error); // the portal's word; the browser's own nobody asked for
      }
    }
    if (act === get) suggest();
  }
})();
