// What the pages do beyond links and forms. Without it they work all the same,
// but for live updates, the search field and passkeys.
'use strict';
(() => {
  const one = (selector, from = document) => from.querySelector(selector);
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];

  // Settings are kept in this browser.
  const setting = {
    get: name => { try { return localStorage.getItem('postern.' + name); } catch { return null; } },
    set: (name, value) => { try { localStorage.setItem('postern.' + name, value); } catch { /* it holds until the page is left */ } },
  };

  // Times, in the reader's own words.

  const relative = new Intl.RelativeTimeFormat(document.documentElement.lang, { numeric: 'auto' });
  const absolute = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' });
  const units = [['day', 86400], ['hour', 3600], ['minute', 60]];

  function tellTimes(from = document) {
    for (const element of all('time[datetime]', from)) {
      const at = new Date(element.dateTime);
      const seconds = Math.round((at - Date.now()) / 1000);
      let words = absolute.format(at);
      element.title = words;
      if (Math.abs(seconds) < 7 * 86400 && element.dataset.date === undefined) {
        const [unit, size] = units.find(([, size]) => Math.abs(seconds) >= size) ?? ['minute', 60];
        words = Math.abs(seconds) < 45 ? (seconds > 0 ? 'in a moment' : 'just now') : relative.format(Math.round(seconds / size), unit);
      }
      if (element.textContent !== words) element.textContent = words;
    }
  }

  // The search field: the list gets shorter as one types.

  const field = one('#search');
  const plain = text => text.normalize('NFD').replace(/\p{M}/gu, '').toLowerCase();

  function search() {
    if (!field) return;
    const words = plain(field.value).split(/\s+/).filter(Boolean);
    const has = text => words.every(word => text.includes(word));
    let found = 0;
    for (const tile of all('[data-tile]')) {
      const own = plain(tile.dataset.find);
      const whole = has(own);
      let inside = 0;
      for (const entry of all('[data-entry]', tile)) {
        const hit = whole || has(own + ' ' + plain(entry.dataset.find));
        entry.hidden = !hit;
        if (hit) inside++;
      }
      tile.hidden = !whole && inside === 0;
      if (!tile.hidden) found++;
      const more = one('.more', tile);
      if (more) {
        const hits = all('[data-entry]:not([hidden])', more).length;
        more.hidden = hits === 0;
        if (words.length && !whole) more.open = hits > 0;
      }
    }
    for (const pick of all('.pick')) {
      pick.hidden = !has(plain(pick.dataset.find));
      if (!pick.hidden) found++;
    }
    for (const group of all('#live .group')) {
      group.hidden = words.length > 0 && !one('[data-tile]:not([hidden]), .pick:not([hidden])', group);
    }
    one('#nothing-found').hidden = words.length === 0 || found > 0;
  }

  const links = () => all('#live a.go').filter(link => link.checkVisibility());

  function step(by) {
    const list = links();
    const at = list.indexOf(document.activeElement);
    if (at < 0 && by < 0) return;
    const next = at + by;
    if (next < 0) field.focus();
    else list[Math.min(next, list.length - 1)]?.focus();
  }

  if (field) {
    const form = one('[data-search]');
    form.hidden = false;
    field.addEventListener('input', search);
    form.addEventListener('submit', event => {
      event.preventDefault();
      if (field.value.trim()) links()[0]?.click();
    });
    one('[data-search-clear]').addEventListener('click', () => {
      field.value = '';
      search();
      field.focus();
    });
    document.addEventListener('keydown', event => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const typing = event.target.matches('input, select, textarea');
      if (event.key === '/' && !typing && setting.get('slash') !== 'off') {
        event.preventDefault();
        field.focus();
        field.select();
      } else if (event.key === 'Escape' && event.target === field && field.value) {
        event.preventDefault();
        field.value = '';
        search();
      } else if (event.key === 'ArrowDown' && (event.target === field || event.target.matches('a.go'))) {
        event.preventDefault();
        step(1);
      } else if (event.key === 'ArrowUp' && event.target.matches('a.go')) {
        event.preventDefault();
        step(-1);
      }
    });
  }

  // Live updates. What comes is as the server has it: what this script does to
  // pages is done again, and a change of a state is said aloud.

  const states = () => new Map(all('[data-state]').map(tile => [tile.dataset.name, tile.dataset.state]));
  let before = states();

  function tellNews() {
    const now = states();
    const news = [];
    for (const [name, state] of now) {
      if (before.has(name) && before.get(name) !== state) news.push(name + ': ' + state);
    }
    before = now;
    if (news.length) one('#news').textContent = news.join('. ');
  }

  function refresh() {
    search();
    tellTimes();
    tellNews();
    showCopies();
  }
  document.addEventListener('htmx:after:swap', refresh);
  document.addEventListener('htmx:sse:after:message', refresh);
  document.addEventListener('ended', () => location.reload());
  document.addEventListener('htmx:sse:error', event => {
    if (event.detail?.status === 401) location.reload();
  });
  document.addEventListener('htmx:response:error', event => {
    if (event.detail?.ctx?.response?.status === 401) location.reload();
  });
  // What is no answer of ours, or not about what was asked for, leaves the page alone.
  document.addEventListener('htmx:before:swap', event => {
    const ctx = event.detail.ctx;
    if (ctx?.response?.status >= 400 && !ctx.hx?.retarget) event.preventDefault();
  });
  // A stream that came up comes back by itself; one that did not is tried again.
  document.addEventListener('htmx:finally:request', event => {
    const element = event.target;
    const url = element.getAttribute?.('hx-sse:connect');
    if (!url || element._htmx?.sse) return;
    setTimeout(() => {
      if (element.isConnected && !element._htmx?.sse) htmx.ajax('GET', url, { source: element });
    }, 5000 + 5000 * Math.random());
  });

  // Copy buttons.

  function showCopies() {
    if (navigator.clipboard) for (const button of all('[data-copy]')) button.hidden = false;
  }
  document.addEventListener('click', async event => {
    const button = event.target.closest('[data-copy]');
    if (!button) return;
    const says = one('span', button);
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      says.textContent = 'Copied';
      one('#news').textContent = 'Copied';
    } catch {
      says.textContent = 'Select it and copy by hand';
    }
    setTimeout(() => { says.textContent = 'Copy'; }, 2500);
  });

  // Menus close by themselves.

  const closeMenus = except => all('.menu[open]').forEach(menu => { if (!menu.contains(except)) menu.open = false; });
  document.addEventListener('click', event => closeMenus(event.target));
  document.addEventListener('focusin', event => closeMenus(event.target));
  document.addEventListener('keydown', event => {
    const menu = event.key === 'Escape' && one('.menu[open]');
    if (menu) {
      menu.open = false;
      one('summary', menu).focus();
    }
  });

  // Forms that need no button, and settings.

  for (const form of all('[data-submit-on-change]')) {
    one('button', form).hidden = true;
    form.addEventListener('change', () => form.submit());
  }
  for (const section of all('[data-settings]')) section.hidden = false;
  for (const box of all('[data-setting]')) {
    box.checked = setting.get(box.dataset.setting) !== 'off';
    box.addEventListener('change', () => setting.set(box.dataset.setting, box.checked ? 'on' : 'off'));
  }

  // What was done is not said again when the page is loaded again.
  if (new URLSearchParams(location.search).has('done')) history.replaceState(null, '', location.pathname);

  search();
  tellTimes();
  showCopies();
  setInterval(tellTimes, 30000);
})();
