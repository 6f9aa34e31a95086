import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    pool: "threads",
    projects: [
      { extends: true, test: { name: "unit", include: ["test/unit/**/*.test.ts"] } },
      {
        extends: true,
        test: {
          name: "e2e",
          // Node 20 may not end a thread in which requests were aborted.
          pool: "forks",
          include: ["test/e2e/**/*.test.ts"],
          // They wait for facts, which may take long on a busy machine.
          testTimeout: 120_000,
          hookTimeout: 60_000,
          // They mostly wait.
          maxWorkers: 5,
        },
      },
    ],
  },
});
