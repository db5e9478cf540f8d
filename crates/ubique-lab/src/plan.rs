//! What will be built: names, addresses, links and delays, computed purely.
