"""Acts on the log, and the way by which every act of an administrator becomes an event."""
