/** A routing table with presence, as `sidewire schema --format json` prints it. */

const topic = (path: string, json_path: string, kind: string) => ({ path, json_path, kind });

export const TABLE = {
  envelope: "test.v1.Envelope",
  events: [
    { json_name: "event", presence: false, sender: [], absent: null, topics: [] },
    {
      json_name: "userPresence",
      presence: true,
      sender: ["user_id"],
      absent: { field: "status", value: "OFFLINE" },
      topics: [
        topic("viewing_item_id", "viewingItemId", "item"),
        topic("project_id", "projectId", "project"),
      ],
    },
    // Has no value for absent.
    {
      json_name: "cursor",
      presence: true,
      sender: ["user_id"],
      absent: null,
      topics: [topic("project_id", "projectId", "project")],
    },
  ],
};
