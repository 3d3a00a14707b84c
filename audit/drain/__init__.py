"""From the journals into PostgreSQL, exactly once; and whether every number arrived."""
