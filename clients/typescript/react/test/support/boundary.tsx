/** Shows errors instead of what has thrown them. */

import { Component, type ReactNode } from "react";

/** Shows the error that is thrown within. */
export class Boundary extends Component<{ children: ReactNode }, { text: string }> {
  override state = { text: "" };

  static getDerivedStateFromError(error: Error) {
    return { text: `${error.name}: ${error.message}` };
  }

  override render() {
    return this.state.text || this.props.children;
  }
}
