-- One row per invoice line as UCI Online Retail has them, told apart into sales and cancellations.
-- Reads `invoices`: the columns as text.
with lines as (
    select
        *,
        upper(trim(InvoiceNo)) like 'C%' or try_cast(Quantity as double) < 0 as is_cancelled
    from invoices
),

named_lines as (
    select
        InvoiceNo,
        StockCode,
        Description,
        InvoiceDate,
        UnitPrice,
        CustomerID,
        Country,
        case when is_cancelled then 'cancellation' else 'sale' end as event,
        -- What was cancelled is counted as a refund of so many, with a plain number.
        case when is_cancelled then regexp_replace(Quantity, '^\s*-', '') else Quantity end as Quantity,
        Quantity as quantity_given,
        case
            when not regexp_matches(trim(StockCode), '^[0-9]{{5}}') then 'not_a_product'
            when try_cast(UnitPrice as double) = 0 then 'price_zero'
        end as early_rule
    from lines
)

select * from named_lines
