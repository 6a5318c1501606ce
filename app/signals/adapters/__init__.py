"""The signals in the shapes that search engines take: one pure function per engine."""
