import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const source = (path: string) => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  test: {
    pool: "threads",
    environment: "happy-dom",
    projects: [
      {
        extends: true,
        // The end-to-end tests use both packages as they are published.
        resolve: {
          alias: {
            "@sidewire/client": source("../src/index.ts"),
            "@sidewire/react": source("src/index.ts"),
          },
        },
        test: { name: "unit", include: ["test/unit/**/*.test.{ts,tsx}"] },
      },
      {
        extends: true,
        test: {
          name: "e2e",
          include: ["test/e2e/**/*.test.{ts,tsx}"],
          testTimeout: 120_000,
          hookTimeout: 60_000,
          // The tests also post events, as a backend does.
          environmentOptions: {
            happyDOM: { settings: { fetch: { disableSameOriginPolicy: true } } },
          },
        },
      },
    ],
  },
});
