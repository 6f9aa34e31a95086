/** Finds what the components of a client share. */

/** Items of clients, by key, until they are over. */
export class Registry<Item extends { readonly isOver: boolean }> {
  readonly #byRelay = new WeakMap<object, Map<string, Item>>();

  /** Returns the item, which is made if there is none. */
  get(relay: object, key: string, make: () => Item): Item {
    const items = this.#byRelay.get(relay) ?? new Map<string, Item>();
    this.#byRelay.set(relay, items);
    const known = items.get(key);
    if (known !== undefined && !known.isOver) return known;
    // Whatever is over would otherwise stay as long as the client.
    for (const [key, { isOver }] of items) if (isOver) items.delete(key);
    const item = make();
    items.set(key, item);
    return item;
  }
}
