/** Where the client writes what nobody else is told. */

/** A part of `console`. */
export interface Logger {
  /** What happens in the normal course of events. */
  debug(message: string, detail?: unknown): void;
  /** What the application should look into. */
  warn(message: string, detail?: unknown): void;
  /** An error in a callback of the application, or one that nobody handles. */
  error(message: string, detail?: unknown): void;
}

/** Writes warnings and errors to the console. */
export const consoleLogger: Logger = {
  debug: () => {},
  warn: (message, detail) => console.warn(message, detail),
  error: (message, detail) => console.error(message, detail),
};
