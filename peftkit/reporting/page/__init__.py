"""The report as one HTML file that needs no network: verdict, table, and charts to explore."""

from peftkit.reporting.page.writing import PAGE, write_page

__all__ = ["PAGE", "write_page"]
