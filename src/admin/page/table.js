// A virtual table: only visible rows have elements, and these are reused. The focus is on the table as a whole and one
// row is active (aria-activedescendant), so that the active row may be scrolled out of view.
import { element, setAttribute, setClass, setText, setTitle } from './dom.js';

// The number of rows drawn above and below the visible ones.
const SPARE = 6;

export class Table {
  rows = [];
  activeId = null;
  sort = { id: '', descending: false };

  #grid;
  #head = element('div', 'head');
  #body = element('div', 'body');
  #columns = [];
  #actions = [];
  #slots = [];
  #act;
  #rowHeight = 0;

  // `act` has `sorted()`, `activated(session)`, `opened(session)` and `key(key, session)`, which returns whether it
  // handled the key.
  constructor(grid, act) {
    this.#grid = grid;
    this.#act = act;
    this.#head.setAttribute('role', 'rowgroup');
    this.#body.setAttribute('role', 'rowgroup');
    grid.append(this.#head, this.#body);
    grid.addEventListener('keydown', (event) => {
      if (event.target === grid && !event.ctrlKey && !event.metaKey && !event.altKey) this.key(event);
    });
    this.#body.addEventListener('click', (event) => this.#click(event));
    this.#body.addEventListener('pointerover', (event) => this.#explain(event));
  }

  // Sets the columns. `actions` are the buttons of each row: { name, label, hover(session), run(session),
  // shown(session) }.
  shape(name, columns, actions, sort) {
    this.#grid.dataset.table = name;
    this.#columns = columns;
    this.#actions = actions;
    this.sort = sort;
    this.rows = [];
    this.activeId = null;
    this.#slots = [];
    this.#body.replaceChildren();
    this.#grid.setAttribute('aria-colcount', columns.length + (actions.length ? 1 : 0));
    const row = element('div', 'row');
    row.setAttribute('role', 'row');
    row.setAttribute('aria-rowindex', 1);
    for (const column of columns) row.append(this.#header(column));
    if (actions.length) {
      const last = element('div', 'cell c-actions');
      last.setAttribute('role', 'columnheader');
      last.setAttribute('aria-label', 'Actions');
      row.append(last);
    }
    this.#head.replaceChildren(row);
    this.sortBy(sort);
  }

  get columns() {
    return this.#columns;
  }

  get column() {
    return this.#columns.find(({ id }) => id === this.sort.id);
  }

  get active() {
    return this.rows[this.#activeIndex()] ?? null;
  }

  // Sets the sort column and marks it in the header.
  sortBy(sort) {
    this.sort = sort;
    for (const header of this.#head.firstChild.children) {
      const by = header.dataset.column === sort.id;
      setAttribute(header, 'aria-sort', by ? (sort.descending ? 'descending' : 'ascending') : 'none');
    }
  }

  // Replaces the rows. Visible rows keep their place, unless `fresh`.
  show(rows, fresh) {
    const anchor = fresh ? null : this.#anchor();
    this.rows = rows;
    setAttribute(this.#grid, 'aria-rowcount', rows.length + 1);
    this.#measure();
    this.#body.style.height = `${rows.length * this.#rowHeight}px`;
    if (fresh) this.#scroll(Math.min(0, -this.#hiddenAbove()));
    const index = anchor ? rows.indexOf(anchor.session) : -1;
    if (index >= 0) this.#scroll((index - anchor.index) * this.#rowHeight);
  }

  // Draws the visible rows; `now` is the proxy's time in unix seconds.
  render(now) {
    this.#measure();
    const { first, last } = this.#inSight();
    const wanted = Math.max(0, last - first);
    // A row uses the slot of its index modulo their number, so that a scroll by one row changes one slot.
    if (wanted > this.#slots.length) {
      for (const { node } of this.#slots) node.remove();
      this.#slots = Array.from({ length: wanted }, (_, index) => this.#slot(index));
      this.#body.append(...this.#slots.map(({ node }) => node));
    }
    const used = new Set();
    let activeNode = null;
    for (let index = first; index < last; index += 1) {
      const slot = this.#slots[index % this.#slots.length];
      used.add(slot);
      this.#paint(slot, index, now);
      if (slot.session.id === this.activeId) activeNode = slot.node;
    }
    for (const slot of this.#slots) {
      if (!used.has(slot) && !slot.node.hidden) slot.node.hidden = true;
    }
    if (activeNode) setAttribute(this.#grid, 'aria-activedescendant', activeNode.id);
    else this.#grid.removeAttribute('aria-activedescendant');
  }

  // Activates the row of `id` and scrolls it into view.
  activate(id, intoSight = true) {
    this.activeId = id;
    const index = this.#activeIndex();
    if (index >= 0 && intoSight) this.#reveal(index);
    this.#act.activated(this.rows[index] ?? null);
  }

  focus() {
    this.#grid.focus({ preventScroll: true });
  }

  #header({ id, title, figures, brief }) {
    const header = element('div', `cell c-${id}${figures ? ' figures' : ''}`);
    header.setAttribute('role', 'columnheader');
    header.dataset.column = id;
    const button = element('button', 'sort', brief ? element('span', 'hush', title) : title);
    button.type = 'button';
    button.title = `Sort by ${title.toLowerCase()}`;
    button.addEventListener('click', () => {
      const same = this.sort.id === id;
      const first = this.#columns.find((column) => column.id === id).descending ?? false;
      this.sortBy({ id, descending: same ? !this.sort.descending : first });
      this.#act.sorted();
    });
    header.append(button);
    return header;
  }

  #slot(index) {
    const node = element('div', 'row');
    node.id = `row-${index}`;
    node.setAttribute('role', 'row');
    const cells = this.#columns.map(({ id, figures, note, brief }) => {
      const text = element('span', brief ? 'hush' : 'text');
      const cell = element('div', `cell c-${id}${figures ? ' figures' : ''}`, text);
      cell.setAttribute('role', 'gridcell');
      const beside = note && element('span', 'note');
      if (beside) cell.append(beside);
      node.append(cell);
      return { cell, text, note: beside };
    });
    const buttons = this.#actions.map(({ name, label }) => {
      const button = element('button', `act act-${name}`, label);
      button.type = 'button';
      button.tabIndex = -1; // reached by keys of the table instead
      button.dataset.action = name;
      return button;
    });
    if (buttons.length) {
      const last = element('div', 'cell c-actions', ...buttons);
      last.setAttribute('role', 'gridcell');
      node.append(last);
    }
    return { node, cells, buttons, session: null, index: -1 };
  }

  #paint(slot, index, now) {
    const session = this.rows[index];
    const { node } = slot;
    if (slot.index !== index) {
      slot.index = index;
      node.style.transform = `translateY(${index * this.#rowHeight}px)`;
      node.setAttribute('aria-rowindex', index + 2);
      setClass(node, 'odd', index % 2 === 1);
    }
    slot.session = session;
    if (node.hidden) node.hidden = false;
    this.#columns.forEach((column, at) => {
      const { text, note } = slot.cells[at];
      setText(text, column.text(session, now));
      if (note) setText(note, column.note(session));
    });
    if (node.dataset.id !== session.id) node.dataset.id = session.id;
    const health = session.health;
    if (node.dataset.health !== health) node.dataset.health = health;
    setAttribute(node, 'aria-selected', session.id === this.activeId);
    this.#actions.forEach((action, at) => {
      const button = slot.buttons[at];
      const shown = action.shown(session);
      if (button.hidden === shown) button.hidden = !shown;
    });
  }

  // Sets the hover texts of the row under the pointer; others are not computed.
  #explain(event) {
    const node = event.target.closest('.row');
    const slot = this.#slots.find((one) => one.node === node);
    if (!slot) return;
    this.#columns.forEach((column, at) => setTitle(slot.cells[at].cell, column.hover(slot.session)));
    this.#actions.forEach((action, at) => setTitle(slot.buttons[at], action.hover(slot.session)));
  }

  #measure() {
    const height = parseFloat(getComputedStyle(this.#grid).getPropertyValue('--row'));
    if (height === this.#rowHeight) return;
    this.#rowHeight = height;
    for (const slot of this.#slots) slot.index = -1;
    this.#body.style.height = `${this.rows.length * height}px`;
  }

  // Returns whether the table scrolls (wide pages) rather than the page (narrow ones).
  #scrollsItself() {
    return getComputedStyle(this.#grid).overflowY === 'auto';
  }

  // Returns the top and the bottom of the area in which rows are visible, in window coordinates.
  #sight() {
    const { top, bottom } = this.#grid.getBoundingClientRect();
    const tools = this.#scrollsItself() ? 0 : (document.querySelector('.tools')?.getBoundingClientRect().bottom ?? 0);
    return { top: Math.max(top + this.#grid.clientTop + this.#head.offsetHeight, tools, 0), bottom: Math.min(bottom, innerHeight) };
  }

  #inSight() {
    const { top, bottom } = this.#sight();
    const from = this.#body.getBoundingClientRect().top;
    const bounded = (index) => Math.min(Math.max(index, 0), this.rows.length);
    return {
      first: bounded(Math.floor((top - from) / this.#rowHeight) - SPARE),
      last: bounded(Math.ceil((bottom - from) / this.#rowHeight) + SPARE),
    };
  }

  // Returns the height of the rows above the visible area, in pixels.
  #hiddenAbove() {
    return this.#sight().top - this.#body.getBoundingClientRect().top;
  }

  #scroll(by) {
    if (by === 0) return;
    if (this.#scrollsItself()) this.#grid.scrollTop += by;
    else scrollBy(0, by);
  }

  // Returns the topmost visible row, if the table is scrolled.
  #anchor() {
    const hidden = this.#hiddenAbove();
    if (hidden < 1) return null;
    const index = Math.floor(hidden / this.#rowHeight);
    const session = this.rows[index];
    return session && { index, session };
  }

  #reveal(index) {
    const { top, bottom } = this.#sight();
    const from = this.#body.getBoundingClientRect().top + index * this.#rowHeight;
    const to = from + this.#rowHeight;
    this.#scroll(from < top ? from - top : to > bottom ? to - bottom : 0);
  }

  #activeIndex() {
    return this.activeId === null ? -1 : this.rows.findIndex(({ id }) => id === this.activeId);
  }

  // Handles a key.
  key(event) {
    const page = Math.max(1, Math.floor(this.#grid.clientHeight / this.#rowHeight) - 2);
    const last = this.rows.length - 1;
    const at = this.#activeIndex();
    const to = {
      ArrowDown: at + 1,
      ArrowUp: at < 0 ? last : at - 1,
      PageDown: at + page,
      PageUp: at - page,
      Home: 0,
      End: last,
    }[event.key];
    if (to !== undefined) {
      if (last >= 0) this.activate(this.rows[Math.min(Math.max(to, 0), last)].id);
    } else if (!this.active || !this.#act.key(event.key, this.active)) {
      return;
    }
    event.preventDefault();
  }

  #click(event) {
    const session = this.rows.find(({ id }) => id === event.target.closest('.row')?.dataset.id);
    if (!session) return;
    const name = event.target.closest('button')?.dataset.action;
    this.activate(session.id, false);
    const action = this.#actions.find((one) => one.name === name);
    if (action) action.run(session);
    else this.#act.opened(session);
  }
}
