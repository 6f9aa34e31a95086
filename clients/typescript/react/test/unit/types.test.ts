/** The types that applications see. */

import type { SidewireEvent } from "@sidewire/client";
import { usePresence, useTopic } from "@sidewire/react";
import { expectTypeOf, test } from "vitest";

type Events = { renamed: { name: string }; presence: { type: string; topics: string[] } };

function useTypes() {
  useTopic<Events>("project:1", {
    onEvent: (event) => {
      if (event.name === "renamed") {
        expectTypeOf(event).toEqualTypeOf<SidewireEvent<"renamed", { name: string }>>();
      }
    },
    onGap: (since) => expectTypeOf(since.offset).toBeString(),
  });
  const { users, set } = usePresence<Events>("project:1");
  expectTypeOf(users("presence")).toEqualTypeOf<ReadonlyMap<string, Events["presence"]>>();
  set("presence", { type: "is reading" });
  // @ts-expect-error: the schema has no such payload.
  users("presents");
  // @ts-expect-error: the payload has no such field.
  set("presence", { kind: "is reading" });
}

function useUntyped() {
  useTopic(["project:1"], {
    onEvent: ({ payload }) => expectTypeOf(payload).toBeAny(),
    onGap: () => {},
  });
  // @ts-expect-error: events may be missing.
  useTopic("project:1", { onEvent: () => {} });
}

// The compiler looks at the hooks; nothing is rendered.
test("events and users have the types that the application names", () => {
  expectTypeOf(useTypes).toBeFunction();
});

test("without types a payload can be anything, and a gap has to be handled", () => {
  expectTypeOf(useUntyped).toBeFunction();
});
