() => {
  // Everything is delegated from the document: results come and go.
  const root = document.documentElement;
  let percent = 60;

  // A new result. On a small screen it is below what was typed.
  let latest = null;
  new MutationObserver(() => {
    const result = document.querySelector('#ic-result :is(.ic-result, .ic-error)');
    if (!result || result === latest) return;
    latest = result;
    for (const input of result.querySelectorAll('.ic-opacity')) input.value = percent;
    if (result.getBoundingClientRect().top > window.innerHeight * 0.5)
      result.scrollIntoView({ behavior: 'smooth', block: 'start' });
  }).observe(root, { childList: true, subtree: true });

  const element = (tag, name, text) => {
    const made = document.createElement(tag);
    if (name) made.className = name;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  const placeAt = (result, event) => {
    const { gridW, gridH } = result.dataset;
    const width = Number(gridW);
    const height = Number(gridH);
    if (!result.icGrid) result.icGrid = atob(result.dataset.grid);
    const box = result.querySelector('.ic-stack').getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) / box.width) * width);
    const y = Math.floor(((event.clientY - box.top) / box.height) * height);
    if (x < 0 || y < 0 || x >= width || y >= height) return null;
    const place = result.icGrid.charCodeAt(y * width + x);
    return place === 255 ? null : place;
  };

  const chip = (result, place) => result.querySelector(`.ic-chip[data-place="${place}"]`);

  const showHeat = (result, map, button) => {
    const heat = result.querySelector('.ic-heat');
    for (const other of result.querySelectorAll('.ic-map'))
      other.setAttribute('aria-pressed', String(other === button));
    heat.hidden = !map;
    result.classList.toggle('ic-heated', Boolean(map));
    if (map) {
      heat.src = map.uri;
      heat.classList.toggle('ic-smooth', map.title === 'Probability');
      heat.alt = `${map.title} heat map`;
    }
  };

  const mapButton = (result, map) => {
    if (!map.uri) {
      const none = element('div', 'ic-map ic-none');
      none.append(element('b', '', map.title), element('p', '', map.reason));
      return none;
    }
    const button = element('button', 'ic-map');
    button.type = 'button';
    button.setAttribute('aria-pressed', 'false');
    const picture = element('img', map.title === 'Probability' ? 'ic-smooth' : '');
    picture.src = map.uri;
    picture.alt = `${map.title} heat map`;
    const scale = element('span', 'ic-scale');
    scale.append(element('span', '', map.low), element('i'), element('span', '', map.high));
    button.append(element('b', '', map.title), picture, scale);
    button.addEventListener('click', () => {
      const on = button.getAttribute('aria-pressed') !== 'true';
      showHeat(result, on ? map : null, on ? button : null);
    });
    return button;
  };

  const select = (result, place) => {
    const chosen = place === null ? null : chip(result, place);
    for (const other of result.querySelectorAll('.ic-chip'))
      other.setAttribute('aria-pressed', String(other === chosen));
    const panel = result.querySelector('.ic-maps');
    showHeat(result, null, null);
    if (!chosen) return;
    if (!result.icMaps) result.icMaps = JSON.parse(result.dataset.maps);
    const maps = result.icMaps[place];
    const title = element('p', 'ic-title');
    const back = element('button', 'ic-back', 'back to labels');
    back.type = 'button';
    back.addEventListener('click', () => select(result, null));
    title.append('Where is ', element('b', '', chosen.querySelector('b').textContent), '? ', back);
    const row = element('div', 'ic-row');
    row.append(...maps.map((map) => mapButton(result, map)));
    panel.replaceChildren(title, maps.length ? row : element('p', '', 'The background has no map.'));
    const first = row.querySelector('button.ic-map');
    if (first) first.click();
  };

  document.addEventListener('click', (event) => {
    const result = event.target.closest('.ic-result');
    if (!result) return;
    const pressed = event.target.closest('.ic-chip');
    if (pressed) {
      const again = pressed.getAttribute('aria-pressed') === 'true';
      select(result, again ? null : Number(pressed.dataset.place));
    } else if (event.target.closest('.ic-stack')) {
      const place = placeAt(result, event);
      if (place !== null) select(result, place);
    }
  });

  document.addEventListener('input', (event) => {
    if (!event.target.matches('.ic-opacity')) return;
    percent = Number(event.target.value);
    root.style.setProperty('--ic-opacity', percent / 100);
  });

  document.addEventListener('mousemove', (event) => {
    const stack = event.target.closest?.('.ic-stack');
    for (const tip of document.querySelectorAll('.ic-tip'))
      if (!stack || !stack.contains(tip)) tip.hidden = true;
    if (!stack) return;
    const result = stack.closest('.ic-result');
    const place = placeAt(result, event);
    const tip = stack.querySelector('.ic-tip');
    tip.hidden = place === null;
    if (place === null) return;
    tip.textContent = chip(result, place).querySelector('b').textContent;
    const box = stack.getBoundingClientRect();
    const right = event.clientX - box.left > box.width / 2;
    tip.style.left = right ? 'auto' : `${event.clientX - box.left + 14}px`;
    tip.style.right = right ? `${box.right - event.clientX + 14}px` : 'auto';
    tip.style.top = `${event.clientY - box.top}px`;
  });
};
